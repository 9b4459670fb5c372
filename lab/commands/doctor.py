# SPDX-License-Identifier: GPL-2.0-only
"""lab doctor: what the host must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.options import Json

if TYPE_CHECKING:
    from lab.doctor import Finding


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    install: Annotated[
        bool, typer.Option("--install", help="Install what is missing (as root, or with sudo).")
    ] = False,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--for", metavar="FEATURE", help="Also what few need: lint, kselftest, vagrant."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the host: packages and their versions, disk, memory, rights, KVM.

    Exit status 3 if something is missing.
    """
    from lab import doctor as host
    from lab.errors import HostError, UserError

    for feature in features or ():
        if feature not in host.ASKED_ONLY:
            raise UserError(f"there is no feature `{feature}`", right=" or ".join(host.ASKED_ONLY))
    if install:
        host.install(features or ())
    findings = host.check(features or ())
    if "vagrant" in (features or ()):
        from lab.provider import vagrant_preflight

        findings += vagrant_preflight.findings()
    _show(findings, as_json=as_json, brief=install)
    missing = [finding for finding in findings if finding.status == host.MISSING]
    packages = {package.name for package in host.PACKAGES}
    lacking = [finding.name for finding in missing if finding.name in packages]
    if lacking:
        raise HostError(
            f"the host lacks {', '.join(lacking)}", right=f"run: {host.install_command(lacking)}"
        )
    if missing:
        raise HostError("; ".join(f"{finding.name}: {finding.detail}" for finding in missing))


def _show(findings: list[Finding], *, as_json: bool, brief: bool) -> None:
    import dataclasses
    import json

    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return
    if brief:  # within a longer run, only what bears on it
        findings = [
            finding
            for finding in findings
            if finding.status == "missing"
            or (finding.status, finding.feature) == ("warning", "host")
        ]
    width = max((len(finding.name) for finding in findings), default=0)
    feature = ""
    for finding in findings:
        if finding.feature != feature:
            feature = finding.feature
            print(f"{feature}:")
        print(f"  {finding.status:8} {finding.name:{width}}  {finding.detail}  ({finding.why})")
