# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line, word for word: a change here is a change of every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.vm import argv
from lab.vm.argv import Memory, Places, compose
from lab.vm.spec import DebugPort, Dgram, Hub, MachineSpec, Nic, Stream, Vde

PLACES = Places(directory=Path("/d"), runtime=Path("/r"))
SPEC = MachineSpec(name="a", kernel=Path("/k/bzImage"), root=Path("/i/root.erofs"))

GOLDEN = """\
/usr/bin/qemu-system-x86_64
-name guest=a,debug-threads=on
-nodefaults
-no-user-config
-display none
-machine q35,usb=off,vmport=off,dump-guest-core=on
-cpu Nehalem,-cx16
-m 512M
-smp 1
-accel tcg
-no-reboot
-action panic=none
-kernel /k/bzImage
-append console=ttyS0 ignore_loglevel printk.time=1 root=/dev/vda rootfstype=erofs ro \
init=/usr/lib/lab/init panic=0 lab.name=a dummy.numdummies=0 ifb.numifbs=0
-blockdev {"driver": "raw", "node-name": "root", "read-only": true, \
"file": {"driver": "file", "filename": "/i/root.erofs", "locking": "off"}}
-device virtio-blk-pci,drive=root,num-queues=1
-chardev file,id=console,path=/d/console.log
-serial chardev:console
-device virtio-serial-pci,max_ports=8
-chardev socket,id=agent,path=/r/agent,server=on,wait=off
-device virtserialport,nr=1,chardev=agent,name=org.qemu.guest_agent.0
-chardev socket,id=executor,path=/r/executor,server=on,wait=off
-device virtserialport,nr=2,chardev=executor,name=lab.executor
-chardev socket,id=terminal,path=/r/terminal,server=on,wait=off
-device virtconsole,nr=3,chardev=terminal
-chardev socket,id=qmp,path=/r/qmp,server=on,wait=off
-mon chardev=qmp,mode=control
-object rng-random,id=rng,filename=/dev/urandom
-device virtio-rng-pci,rng=rng
-device pvpanic-pci
-device vmcoreinfo
-netdev hubport,id=net0,hubid=0
-device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:0c:29:2c:00,romfile=
-netdev hubport,id=net1,hubid=1
-device virtio-net-pci,id=nic1,netdev=net1,mac=52:54:0c:29:2c:01,romfile=
-netdev hubport,id=net2,hubid=2
-device virtio-net-pci,id=nic2,netdev=net2,mac=52:54:0c:29:2c:02,romfile=
-netdev hubport,id=net3,hubid=3
-device virtio-net-pci,id=nic3,netdev=net3,mac=52:54:0c:29:2c:03,romfile=
"""


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argv.shutil, "which", lambda name: f"/usr/bin/{name}")


def words(spec: MachineSpec, memory: Memory | None = None) -> list[str]:
    return compose(spec, places=PLACES, memory=memory)


def value(line: list[str], option: str) -> str:
    return line[line.index(option) + 1]


def values(line: list[str], option: str) -> list[str]:
    return [line[at + 1] for at, word in enumerate(line) if word == option]


def as_lines(line: list[str]) -> str:
    """One option a line, as a person reads them."""
    text = ""
    for word in line:
        starts = word.startswith("-")
        text += ("\n" if starts and text else "" if starts or not text else " ") + word
    return text + "\n"


def test_plain_machine() -> None:
    assert as_lines(words(SPEC)) == GOLDEN


def test_payload_is_the_second_disk() -> None:
    line = words(replace(SPEC, payload=Path("/p/payload.erofs")))
    disks = [word for word in line if word.startswith("virtio-blk-pci")]
    assert [disk.split(",")[1] for disk in disks] == ["drive=root", "drive=payload"]


def test_accelerator_is_always_said() -> None:
    assert value(words(replace(SPEC, accel="kvm")), "-accel") == "kvm"


def test_snapshot_base_shares_its_memory() -> None:
    line = words(SPEC, Memory(file=Path("/s/memory"), frozen=False))
    assert values(line, "-object")[0] == (
        "memory-backend-file,id=ram,size=512M,mem-path=/s/memory,share=on"
    )
    assert value(line, "-machine").endswith(",memory-backend=ram")
    assert "-incoming" not in line


def test_clone_maps_memory_privately_and_waits() -> None:
    line = words(SPEC, Memory(file=Path("/s/memory"), frozen=True))
    assert values(line, "-object")[0].endswith(",share=off")
    assert value(line, "-incoming") == "defer"


def test_clone_has_its_kernel_in_its_memory() -> None:
    base, clone = (words(SPEC, Memory(file=Path("/m"), frozen=frozen)) for frozen in (False, True))
    at = base.index("-kernel")
    assert {"-kernel", "-append"} & set(clone) == set()
    assert base[at + 4 :] == clone[clone.index("-blockdev") :]


def test_clone_and_base_have_the_same_devices() -> None:
    nics = (Nic(wire=Dgram(local=Path("/r/x"), remote=Path("/r/y"))),)
    base = words(SPEC, Memory(file=Path("/m"), frozen=False))
    clone = words(replace(SPEC, nics=nics), Memory(file=Path("/m"), frozen=True))
    assert values(base, "-device") == values(clone, "-device")


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (Hub(), "hubport,id=net0,hubid=0"),
        (
            Dgram(local=Path("/a"), remote=Path("/b")),
            "dgram,id=net0,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b",
        ),
        (
            Stream(path=Path("/s"), server=True),
            "stream,id=net0,server=on,addr.type=unix,addr.path=/s",
        ),
        (
            Stream(path=Path("/s"), server=False),
            "stream,id=net0,server=off,addr.type=unix,addr.path=/s",
        ),
        (Vde(path=Path("/v")), "vde,id=net0,sock=/v"),
    ],
)
def test_wires(wire: Hub | Dgram | Stream | Vde, expected: str) -> None:
    assert values(words(replace(SPEC, nics=(Nic(wire=wire),))), "-netdev")[0] == expected


@pytest.mark.parametrize(("asked", "given"), [(0, 4), (4, 4), (5, 8), (9, 16), (16, 16)])
def test_cards_come_in_steps(asked: int, given: int) -> None:
    line = words(replace(SPEC, nics=tuple(Nic() for _ in range(asked))))
    assert sum(word.startswith("virtio-net-pci") for word in line) == given


def test_too_many_cards() -> None:
    with pytest.raises(ValueError, match="17 cards, at most 16"):
        words(replace(SPEC, nics=tuple(Nic() for _ in range(17))))


def test_capture() -> None:
    line = words(replace(SPEC, nics=(Nic(), Nic(capture=Path("/d/eth1.pcap")))))
    dumps = [word for word in values(line, "-object") if word.startswith("filter-dump")]
    assert dumps == ["filter-dump,id=dump1,netdev=net1,file=/d/eth1.pcap,maxlen=65536"]


def test_addresses_differ_between_machines_and_cards_and_not_between_runs() -> None:
    names = [replace(SPEC, name=name) for name in ("a", "b", "node10")]
    macs = {argv.mac(spec, number, Nic()) for spec in names for number in range(4)}
    assert len(macs) == 12
    assert all(mac.startswith("52:54:") for mac in macs)
    assert argv.mac(names[0], 0, Nic()) == "52:54:0c:29:2c:00"
    assert argv.mac(names[0], 0, Nic(mac="02:00:00:00:00:01")) == "02:00:00:00:00:01"


def test_ssh_has_a_card_of_its_own_on_loopback() -> None:
    line = words(replace(SPEC, ssh_port=2222))
    assert values(line, "-netdev")[-1] == ("user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22")
    assert argv.SSH_MAC in values(line, "-device")[-1]


def test_instruction_count_is_reproducible() -> None:
    line = words(replace(SPEC, icount=True))
    assert value(line, "-cpu") == SPEC.cpu
    assert value(line, "-icount") == "shift=0,sleep=off"
    assert value(line, "-accel") == "tcg,thread=single"
    assert "nokaslr" in value(line, "-append").split()
    assert not any("rng" in word for word in line)


def test_cpus_in_one_thread_of_the_host() -> None:
    spec = replace(SPEC, cpus=2, single_thread=True)
    assert value(words(spec), "-accel") == "tcg,thread=single"
    assert (spec.cores, replace(SPEC, cpus=2).cores) == (1, 2)
    # KVM runs what the guest has patched, and knows no such option.
    on_kvm = replace(spec, accel="kvm")
    assert value(words(on_kvm), "-accel") == "kvm"
    assert on_kvm.cores == 2


def test_debug_port_and_acpi_table() -> None:
    line = words(
        replace(
            SPEC,
            debug_ports=(DebugPort(name="pstate", port=0x5F0),),
            acpi_tables=(Path("/t/ssdt.aml"),),
        )
    )
    assert value(line, "-acpitable") == "file=/t/ssdt.aml"
    assert "file,id=pstate,path=/d/pstate.bin" in line
    assert "isa-debugcon,iobase=0x5f0,chardev=pstate" in line


def test_gdb_starts_stopped() -> None:
    line = words(replace(SPEC, gdb=Path("/r/gdb")))
    assert "-S" in line
    assert value(line, "-gdb") == "chardev:gdb"


def test_commas_in_paths() -> None:
    places = Places(directory=Path("/a,b"), runtime=Path("/r"))
    line = compose(SPEC, places=places)
    assert "file,id=console,path=/a,,b/console.log" in line


def test_extra_words_come_last() -> None:
    line = words(replace(SPEC, cmdline=("slub_debug=FZ", "lab.name=x")))
    assert value(line, "-append").endswith(" slub_debug=FZ lab.name=x")


def test_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argv.shutil, "which", lambda _: None)
    with pytest.raises(HostError, match="qemu-system-x86_64 is not installed; install"):
        words(SPEC)
