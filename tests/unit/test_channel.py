# SPDX-License-Identifier: GPL-2.0-only
"""The guest channel against an agent that a test plays itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.vm import loop
from lab.vm.channel import AgentChannel
from lab.vm.errors import (
    CommandRefused,
    CommandTimeout,
    GuestFileError,
    GuestPanicked,
    GuestSilent,
    MachineDied,
)

Answer = Callable[[dict[str, Any]], Any]


class Agent:
    """Answers requests as the real agent does; a handler returning None says nothing.

    As QEMU does with its port, it serves one connection at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handlers: dict[str, Answer] = {
            "guest-ping": lambda _: {},
            "guest-sync": lambda arguments: arguments["id"],
            "guest-exec": self.execute,
            "guest-exec-status": self.status,
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.ended: dict[int, dict[str, Any]] = {}
        self.writers: list[asyncio.StreamWriter] = []
        self._next = 100
        self.outcome: dict[str, Any] = {"exited": True, "exitcode": 0}

    async def serve(self) -> None:
        one = asyncio.Lock()

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with one:
                await self._client(reader, writer)

        self.server = await asyncio.start_unix_server(client, str(self.path))

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        text = ""
        while data := await reader.read(1 << 20):
            # Requests come without anything between them.
            text += data.decode()
            with contextlib.suppress(json.JSONDecodeError):
                while text:
                    message, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:]
                    self._serve(message, writer)

    def _serve(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        arguments = message.get("arguments", {})
        self.asked.append((message["execute"], arguments))
        value = self.handlers[message["execute"]](arguments)
        if value is not None:
            kind = "error" if isinstance(value, dict) and "desc" in value else "return"
            writer.write(json.dumps({kind: value, "id": message["id"]}).encode() + b"\n")

    def execute(self, _: dict[str, Any]) -> dict[str, Any]:
        self._next += 1
        return {"pid": self._next}

    def status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.ended.get(arguments["pid"], self.outcome)

    def commands(self) -> list[str]:
        return [arguments["arg"][-1] for name, arguments in self.asked if name == "guest-exec"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    player = Agent(tmp_path / "agent")
    loop.call(player.serve())
    yield player

    async def close() -> None:
        player.server.close()
        for writer in player.writers:
            writer.close()

    loop.call(close())


@pytest.fixture
def doom() -> asyncio.Future[LabError]:
    return loop.future()


@pytest.fixture
def channel(agent: Agent, doom: asyncio.Future[LabError]) -> Iterator[AgentChannel]:
    it = AgentChannel(node="a", socket=agent.path, patience=1, doom=doom)
    yield it
    loop.call(it.close())


def lose(doom: asyncio.Future[LabError], reason: LabError) -> None:
    loop.loop().call_soon_threadsafe(doom.set_result, reason)


def coded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_status_and_both_streams(agent: Agent, channel: AgentChannel) -> None:
    agent.outcome = {
        "exited": True,
        "exitcode": 3,
        "out-data": coded(b"out\n"),
        "err-data": coded(b"err \xff\n"),
    }
    done = channel.run("x", timeout=5, stdin=None)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err \ufffd\n")
    assert channel.run_raw("x", timeout=5).stderr == b"err \xff\n"


@pytest.mark.parametrize("stream", ["out", "err"])
def test_what_the_agent_dropped_is_told(agent: Agent, channel: AgentChannel, stream: str) -> None:
    agent.outcome = {"exited": True, "exitcode": 0, f"{stream}-truncated": True}
    assert channel.run("x", timeout=5, stdin=None).cut
    agent.outcome = {"exited": True, "exitcode": 0}
    assert not channel.run("x", timeout=5, stdin=None).cut


def test_end_by_signal_is_as_in_a_shell(agent: Agent, channel: AgentChannel) -> None:
    agent.outcome = {"exited": True, "signal": 9}
    assert channel.run("x", timeout=5).status == 137


def test_standard_input(agent: Agent, channel: AgentChannel) -> None:
    channel.run("cat", timeout=5, stdin=b"\0in")
    assert base64.b64decode(agent.asked[0][1]["input-data"]) == b"\0in"


def test_timeout_ends_the_process_group(agent: Agent, channel: AgentChannel) -> None:
    agent.outcome = {"exited": False}

    def execute(arguments: dict[str, Any]) -> dict[str, Any]:
        if "kill" in arguments["arg"][-1]:
            agent.ended[101] = {"exited": True, "signal": 9, "out-data": coded(b"so far")}
        return agent.execute(arguments)

    agent.handlers["guest-exec"] = execute
    with pytest.raises(CommandTimeout, match=r"did not end within 0\.2 s") as caught:
        channel.run("sleep 600", timeout=0.2)
    assert agent.commands()[1] == "kill -9 -101"
    assert caught.value.stdout == "so far"


def test_interrupt_ends_the_command_too(agent: Agent, channel: AgentChannel) -> None:
    agent.outcome = {"exited": False}

    async def interrupted() -> None:
        task = asyncio.ensure_future(channel.run_async("sleep 600", timeout=60))
        await asyncio.sleep(0.3)
        task.cancel()
        agent.outcome = {"exited": True, "signal": 9}
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.call(interrupted())
    assert agent.commands() == ["sleep 600", "kill -9 -101"]


def test_silence(agent: Agent, channel: AgentChannel) -> None:
    agent.handlers["guest-ping"] = lambda _: None
    began = time.monotonic()
    with pytest.raises(GuestSilent, match=r"a: the guest agent did not answer within 0\.3 s"):
        loop.call(channel.ping(timeout=0.3))
    assert time.monotonic() - began < 3


def test_silence_in_the_middle_of_a_command(agent: Agent, channel: AgentChannel) -> None:
    channel.silence = 0.3
    agent.handlers["guest-exec-status"] = lambda _: None
    with pytest.raises(GuestSilent, match="did not answer"):
        channel.run("x", timeout=60)


@pytest.mark.parametrize(
    "reason",
    [
        GuestPanicked("a: Kernel panic - not syncing: x"),
        MachineDied("a: QEMU ended with status 1: y", reason="qemu"),
    ],
)
def test_a_lost_machine_is_told_at_once(
    agent: Agent, channel: AgentChannel, doom: asyncio.Future[LabError], reason: LabError
) -> None:
    agent.handlers["guest-exec-status"] = lambda _: None
    threading.Timer(0.2, lose, (doom, reason)).start()
    began = time.monotonic()
    with pytest.raises(type(reason)) as caught:
        channel.run("x", timeout=60)
    assert caught.value is reason
    assert time.monotonic() - began < 5


def test_a_broken_connection_waits_for_the_news_why(
    agent: Agent, channel: AgentChannel, doom: asyncio.Future[LabError]
) -> None:
    def hang_up(_: dict[str, Any]) -> None:
        agent.writers[-1].close()
        threading.Timer(0.3, lose, (doom, MachineDied("gone", reason="qemu"))).start()

    agent.handlers["guest-exec"] = hang_up
    with pytest.raises(MachineDied, match="gone"):
        channel.run("x", timeout=60)


def test_an_agent_that_hangs_up(agent: Agent, channel: AgentChannel) -> None:
    agent.handlers["guest-exec"] = lambda _: agent.writers[-1].close()
    with pytest.raises(GuestSilent, match="closed the connection"):
        channel.run("x", timeout=60)


def test_many_at_once(agent: Agent, channel: AgentChannel) -> None:
    results: dict[int, str] = {}

    def execute(arguments: dict[str, Any]) -> dict[str, Any]:
        pid = agent.execute(arguments)["pid"]
        agent.ended[pid] = {
            "exited": True,
            "exitcode": 0,
            "out-data": coded(arguments["arg"][-1].encode()),
        }
        return {"pid": pid}

    agent.handlers["guest-exec"] = execute

    def ask(number: int) -> None:
        results[number] = channel.run(f"echo {number}", timeout=10).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"echo {number}" for number in range(20)}
    assert agent.connections == 1


def test_files_go_in_pieces(agent: Agent, channel: AgentChannel) -> None:
    content = bytes(range(256)) * 3000
    written = bytearray()
    opened: list[dict[str, Any]] = []
    offset = 0

    def write(arguments: dict[str, Any]) -> dict[str, Any]:
        written.extend(base64.b64decode(arguments["buf-b64"]))
        return {"count": 1, "eof": False}

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        nonlocal offset
        piece = written[offset : offset + arguments["count"]]
        offset += len(piece)
        return {"buf-b64": coded(bytes(piece)), "eof": offset >= len(written)}

    agent.handlers |= {
        "guest-file-open": lambda arguments: opened.append(arguments) or 7,
        "guest-file-write": write,
        "guest-file-read": read,
        "guest-file-flush": lambda _: {},
        "guest-file-close": lambda _: {},
    }
    channel.write("/tmp/x y", content, mode=0o755, timeout=5)
    assert channel.read("/tmp/x y", timeout=5) == content
    assert [one["mode"] for one in opened] == ["w", "r"]
    assert agent.commands() == ["chmod 755 -- '/tmp/x y'"]
    assert sum(name == "guest-file-close" for name, _ in agent.asked) == 2


def test_a_command_that_is_not_started(agent: Agent, channel: AgentChannel) -> None:
    agent.handlers["guest-exec"] = lambda _: {"class": "GenericError", "desc": "fork failed"}
    with pytest.raises(CommandRefused, match="a: `x` was not started: fork failed"):
        channel.run("x", timeout=5)


def test_no_such_file(agent: Agent, channel: AgentChannel) -> None:
    agent.handlers["guest-file-open"] = lambda _: {"class": "GenericError", "desc": "No such file"}
    with pytest.raises(GuestFileError, match="a: /x cannot be opened: No such file"):
        channel.read("/x", timeout=5)


def test_a_shared_agent_is_left_to_others(agent: Agent, doom: asyncio.Future[LabError]) -> None:
    agent.outcome = {"exited": False}
    shared = AgentChannel(node="a", socket=agent.path, patience=1, doom=doom, shared=True)
    threading.Timer(1.5, agent.outcome.update, ({"exited": True, "exitcode": 0},)).start()
    assert shared.run("x", timeout=20).status == 0
    loop.call(shared.close())
    assert agent.connections > 1, "it hung up while the command ran"
    assert sum(name == "guest-exec" for name, _ in agent.asked) == 1


def test_interrupt_before_a_shared_agent_is_ours_ends_the_command_too(
    agent: Agent, doom: asyncio.Future[LabError]
) -> None:
    agent.outcome = {"exited": False}
    shared = AgentChannel(node="a", socket=agent.path, patience=1, doom=doom, shared=True)

    async def interrupted() -> None:
        task = asyncio.ensure_future(shared.run_async("sleep 600", timeout=60))
        asked = asyncio.Event()

        def silent(_: dict[str, Any]) -> None:
            asked.set()

        await asyncio.sleep(0.3)
        agent.handlers["guest-sync"] = silent
        await asyncio.wait_for(asked.wait(), 5)
        agent.handlers["guest-sync"] = lambda arguments: arguments["id"]
        agent.outcome = {"exited": True, "signal": 9}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        await shared.close()

    loop.call(interrupted())
    assert agent.commands() == ["sleep 600", "kill -9 -101"]


def test_a_shared_agent_may_first_say_what_others_asked(
    agent: Agent, doom: asyncio.Future[LabError]
) -> None:
    stale = iter([12345])
    agent.handlers["guest-sync"] = lambda arguments: next(stale, arguments["id"])
    shared = AgentChannel(node="a", socket=agent.path, patience=1, doom=doom, shared=True)
    assert shared.run("x", timeout=5).status == 0
    loop.call(shared.close())
    assert sum(name == "guest-sync" for name, _ in agent.asked) == 2
