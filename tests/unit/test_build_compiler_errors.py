# SPDX-License-Identifier: GPL-2.0-only
"""The first error of a build, as compilers, linkers and modpost really print it."""

from pathlib import Path

import pytest

from lab.kernel.compiler_errors import first_error

SOURCE = Path("/store/tree")

GCC = """\
  CC      net/core/sock.o
  CC      net/core/dev.o
In file included from /store/tree/include/linux/netdevice.h:3,
                 from /store/tree/net/core/dev.c:9:
/store/tree/net/core/dev.c: In function 'foo':
/store/tree/net/core/dev.c:120:2: warning: unused variable 'x' [-Wunused-variable]
/store/tree/net/core/dev.c:123:9: error: 'bar' undeclared (first use in this function)
  123 |         bar = 1;
      |         ^~~
/store/tree/net/core/dev.c:123:9: note: each undeclared identifier is reported only once
/store/tree/net/core/dev.c:130:1: error: something later
make[4]: *** [/store/tree/scripts/Makefile.build:229: net/core/dev.o] Error 1
make[3]: *** [/store/tree/scripts/Makefile.build:478: net/core] Error 2
make: *** [Makefile:224: __sub-make] Error 2
"""

CLANG = """\
  CC      drivers/base/core.o
../drivers/base/core.c:10:2: error: call to undeclared function 'f'
   10 |         f();
      |         ^
1 error generated.
make: *** [Makefile:224: __sub-make] Error 2
"""

MODPOST = """\
make[3]: *** [/store/tree/scripts/Makefile.modpost:145: Module.symvers] Error 1
ERROR: modpost: "foo" [/x/a.ko] undefined!
ERROR: modpost: "bar" [/x/a.ko] undefined!
"""

LINK = """\
  LD      .tmp_vmlinux1
ld: vmlinux.o: in function `x':
/store/tree/net/core/dev.c:77: undefined reference to `gone'
make[2]: *** [/store/tree/scripts/Makefile.vmlinux:34: vmlinux] Error 1
"""

LLD = """\
ld.lld: error: undefined symbol: gone
>>> referenced by dev.c
make[2]: *** [scripts/Makefile.vmlinux:34: vmlinux] Error 1
"""

NO_RULE = "make[3]: *** No rule to make target 'net/core/gone.o', needed by 'net/built-in.a'.\n"

MISSING_HEADER = """\
  HOSTCC  certs/extract-cert
/store/tree/certs/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or directory
   21 | #include <openssl/bio.h>
      |          ^~~~~~~~~~~~~~~
compilation terminated.
"""

MAKEFILE = "/store/tree/net/Makefile:12: *** missing separator.  Stop.\n"

ASSEMBLER = """\
/store/tree/arch/x86/lib/a.S: Assembler messages:
/store/tree/arch/x86/lib/a.S:7: Error: no such instruction: `movx %rax'
make[3]: *** [a.o] Error 1
"""


def test_gcc_with_its_excerpt() -> None:
    error = first_error(GCC, source=SOURCE)
    assert error is not None
    assert (error.file, error.line) == ("net/core/dev.c", 123)
    assert error.what == "error: 'bar' undeclared (first use in this function)"
    assert error.excerpt[0] == "  123 |         bar = 1;"
    assert "something later" not in error.text
    assert "make[" not in error.text
    assert not error.host


def test_clang_below_a_relative_source() -> None:
    error = first_error(CLANG)
    assert error is not None
    assert (error.file, error.line) == ("drivers/base/core.c", 10)
    assert error.excerpt == ("   10 |         f();", "      |         ^")


def test_a_program_for_the_host_is_the_hosts_fault() -> None:
    error = first_error(MISSING_HEADER, source=SOURCE)
    assert error is not None
    assert error.host
    assert "openssl/bio.h" in error.what


@pytest.mark.parametrize(
    ("output", "file", "line", "what"),
    [
        (LINK, "net/core/dev.c", 77, "undefined reference to `gone'"),
        (MAKEFILE, "net/Makefile", 12, "missing separator."),
        (ASSEMBLER, "arch/x86/lib/a.S", 7, "Error: no such instruction: `movx %rax'"),
        (LLD, None, None, "ld.lld: error: undefined symbol: gone"),
        (MODPOST, None, None, 'ERROR: modpost: "foo" [/x/a.ko] undefined!'),
        (NO_RULE, None, None, NO_RULE.strip()),
    ],
)
def test_other_tools(output: str, file: str | None, line: int | None, what: str) -> None:
    error = first_error(output, source=SOURCE)
    assert error is not None
    assert (error.file, error.line, error.what) == (file, line, what)


def test_all_symbols_that_modpost_misses_are_shown() -> None:
    error = first_error(MODPOST)
    assert error is not None
    assert '"bar"' in error.text


def test_no_error_is_none() -> None:
    assert first_error("  CC      a.o\nmake: *** [x] Error 1\nwarning: a:1:2: error-like\n") is None
