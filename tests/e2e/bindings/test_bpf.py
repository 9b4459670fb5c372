# SPDX-License-Identifier: GPL-2.0-only
"""Maps that a script shares with user space; what they do per packet: tests/e2e/xdp."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lab.vm.machine import Machine

AT = "/sys/fs/bpf"

#: name: type, key, value, entries, more words for bpftool.
MAPS = {
    "array": "array key 4 value 8 entries 4",
    "hash": "hash key 6 value 200 entries 3",
    "lru": "lru_hash key 4 value 4 entries 100",
    "queue": "queue value 8 entries 2",
    "stack": "stack value 8 entries 2",
    "ring": "ringbuf entries 4096",
    "percpu": "percpu_array key 4 value 8 entries 4",
    "readonly": "hash key 4 value 4 entries 4 flags 128",
    "writeonly": "hash key 4 value 4 entries 4 flags 256",
}


@pytest.fixture
def maps(machine: Machine) -> Machine:
    """A machine on which they are pinned."""
    made = "".join(
        f"bpftool map create {AT}/{name} type {words} name {name}\n" for name, words in MAPS.items()
    )
    machine.succeed(f"set -e; mountpoint -q {AT} || mount -t bpf bpf {AT}\n{made}")
    return machine


def elements(machine: Machine, name: str) -> dict[bytes, bytes]:
    def text(words: list[str]) -> bytes:
        return bytes(int(word, 16) for word in words)

    said = json.loads(machine.succeed(f"bpftool -j map dump pinned {AT}/{name}"))
    return {text(one["key"]): text(one["value"]) for one in said}


def test_tables(maps: Machine, check: Callable[[str], str]) -> None:
    check("""
        local bpf = require("bpf")
        local array, hash = bpf.array("/sys/fs/bpf/array"), bpf.hash("/sys/fs/bpf/hash")
        assert(array:lookup(3) == ("\\0"):rep(8) and array:lookup(4) == nil)
        assert(array:update(3, "abcdefgh") and array:lookup("\\3\\0\\0\\0") == "abcdefgh")
        raises("EINVAL", array.delete, array, 3)
        raises("EINVAL", array.update, array, 3, "abcdefgh", 77)
        local value = ("v"):rep(200)
        for i = 1, 3 do assert(hash:update(("key%03d"):format(i), value)) end
        local done, why = hash:update("key004", value)
        assert(done == nil and why == "E2BIG")
        done, why = hash:update("key001", value, 1)
        assert(done == nil and why == "EEXIST")
        assert(hash:lookup("key002") == value and hash:lookup("key009") == nil)
        assert(hash:delete("key002") and hash:lookup("key002") == nil)
        done, why = hash:delete("key002")
        assert(done == nil and why == "ENOENT")
        local keys, key = {}, hash:next()
        while key do
            keys[#keys + 1] = key
            key = hash:next(key)
        end
        table.sort(keys)
        assert(table.concat(keys, " ") == "key001 key003")
        assert(#hash == 3 and #array == 4)
    """)
    assert elements(maps, "hash") == dict.fromkeys((b"key001", b"key003"), b"v" * 200)
    assert elements(maps, "array")[b"\3\0\0\0"] == b"abcdefgh"


def test_lists(maps: Machine, check: Callable[[str], str]) -> None:
    check("""
        local bpf = require("bpf")
        local queue, stack = bpf.queue("/sys/fs/bpf/queue"), bpf.stack("/sys/fs/bpf/stack")
        for _, list in ipairs{queue, stack} do
            assert(list:pop() == nil and list:peek() == nil)
            assert(list:push("one_____") and list:push("two_____"))
            local done, why = list:push("three___")
            assert(done == nil and why == "E2BIG")
            assert(list:push("three___", 2), "BPF_EXIST makes room")
        end
        assert(queue:peek() == "two_____" and queue:pop() == "two_____")
        assert(queue:pop() == "three___" and queue:pop() == nil)
        assert(stack:pop() == "three___" and #stack == 2)
    """)


def test_what_does_not_fit_is_refused(maps: Machine, check: Callable[[str], str]) -> None:
    maps.succeed(f"bpftool map pin name hash {AT}/again", "touch /tmp/file")
    check("""
        local bpf = require("bpf")
        local at = "/sys/fs/bpf/"
        raises("ENOENT", bpf.hash, at .. "nothing")
        raises("EINVAL", bpf.hash, "/tmp/file")
        raises("EINVAL", bpf.hash, "/sys/fs/bpf")
        raises("is no queue", bpf.queue, at .. "hash")
        raises("is no hash", bpf.hash, at .. "lru")
        raises("is no array", bpf.array, at .. "percpu")
        raises("is no devmap", bpf.devmap, at .. "ring")
        local hash, again = bpf.hash(at .. "hash"), bpf.hash(at .. "again")
        raises("a key has 6 bytes, not 5", hash.lookup, hash, "short")
        raises("a key has 6 bytes, not 0", hash.update, hash, "", ("v"):rep(200))
        raises("a value has 200 bytes, not 201", hash.update, hash, "key001", ("v"):rep(201))
        raises("string expected", hash.lookup, hash, 5)
        raises("string expected", hash.lookup, hash)
        raises("bpf.map expected", hash.lookup, bpf.queue(at .. "queue"), "key001")
        assert(hash:update("key001", ("v"):rep(200)) and again:lookup("key001"))
        hash:close()
        raises("is closed", hash.lookup, hash, "key001")
        assert(again:lookup("key001"), "another object for the same map")
        local readonly, writeonly = bpf.hash(at .. "readonly"), bpf.hash(at .. "writeonly")
        raises("EACCES", readonly.update, readonly, 1, "text")
        raises("EACCES", readonly.delete, readonly, 1)
        assert(readonly:lookup(1) == nil and writeonly:update(1, "text"))
        raises("EACCES", writeonly.lookup, writeonly, 1)
    """)


#: Loads "return 0" and pins it.
PIN_PROGRAM = """
import ctypes, struct
words = [ctypes.create_string_buffer(text) for text in
         (struct.pack("<QQ", 0xb7, 0x95), b"GPL", b"/sys/fs/bpf/program")]
code, licence, path = (ctypes.addressof(word) for word in words)
bpf = lambda command, form, *fields: ctypes.CDLL(None).syscall(
    321, command, struct.pack(form, *fields), struct.calcsize(form))
program = bpf(5, "=IIQQ", 1, 2, code, licence)
assert program >= 0 and bpf(6, "=QI", path, program) == 0
"""


def test_program_is_no_map(maps: Machine, check: Callable[[str], str]) -> None:
    # bpffs does not tell what it keeps.
    maps.copy_to(PIN_PROGRAM.encode(), "/tmp/pin.py")
    maps.succeed("python3 /tmp/pin.py", f"bpftool prog show pinned {AT}/program")
    check('raises("EINVAL", require("bpf").hash, "/sys/fs/bpf/program")')


def test_neither_opened_nor_walked_where_all_the_kernel_waits(
    maps: Machine, script: Callable[..., None]
) -> None:
    script("""
        local bpf = require("bpf")
        local array = bpf.array("/sys/fs/bpf/array")
        require("notifier").netdevice(function(event, name)
            if name == "dummy7" then
                raises("not where all the kernel waits", bpf.array, "/sys/fs/bpf/array")
                raises("not where all the kernel waits", array.next, array)
                assert(array:update(3, "refused!"))
            end
        end)
    """)
    maps.succeed("ip link add dummy7 type dummy")
    assert elements(maps, "array")[b"\3\0\0\0"] == b"refused!"


@pytest.mark.parametrize("context", ["softirq", "hardirq"])
def test_shared_between_contexts(
    maps: Machine, check: Callable[[str], str], other: Callable[[str], None], context: str
) -> None:
    other("""
        local bpf = require("bpf")
        local lru = bpf.lru_hash("/sys/fs/bpf/lru")
        return function(shared)
            raises("opening a map", bpf.hash, "/sys/fs/bpf/hash")
            raises("map:next", lru.next, lru)
            for i = 1, 300 do lru:update(i, "text") end
            return shared:lookup(0) .. (lru:lookup(300) or "gone")
        end
    """)
    assert "abcdefghtext" in check(f"""
        local lunatik, bpf = require("lunatik"), require("bpf")
        local array = bpf.array("/sys/fs/bpf/array")
        array:update(0, "abcdefgh")
        local other <close> = lunatik.runtime("other", "{context}")
        return other:resume(array)
    """)


def test_map_goes_with_its_last_script(maps: Machine, check: Callable[[str], str]) -> None:
    check("""
        local lunatik, bpf = require("lunatik"), require("bpf")
        for i = 1, 20 do bpf.hash("/sys/fs/bpf/hash") end
        lunatik._ENV.kept = bpf.hash("/sys/fs/bpf/hash")
    """)
    maps.succeed(f"rm {AT}/hash", "bpftool map show name hash")
    check("local lunatik = require('lunatik'); lunatik._ENV.kept = nil")
    maps.wait_until_succeeds("! bpftool map show name hash 2>/dev/null | grep -q hash")
