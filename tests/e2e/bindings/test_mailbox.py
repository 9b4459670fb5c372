# SPDX-License-Identifier: GPL-2.0-only
"""mailbox: messages keep their bounds on their way between runtimes."""

from __future__ import annotations

from collections.abc import Callable

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_messages_keep_their_bounds(check: Check) -> None:
    check(
        r"""
        local mailbox = require("mailbox")
        local inbox = mailbox.inbox(256)
        local outbox = mailbox.outbox(inbox.queue, inbox.event)
        for _, message in ipairs{"one", "", "with\0nul", ("x"):rep(100)} do outbox:send(message) end
        for _, message in ipairs{"one", "", "with\0nul", ("x"):rep(100)} do
            assert(inbox:receive() == message)
        end
        """
    )


def test_nothing_to_receive(check: Check) -> None:
    check(
        """
        local mailbox = require("mailbox")
        local message, why = mailbox.inbox(64):receive(5)
        assert(message == nil and why == "timeout", why)
        message, why = mailbox.inbox(require("fifo").new(64)):receive()
        assert(message == nil and why == "empty", why)
        """
    )


def test_each_end_does_its_part_only(check: Check) -> None:
    check(
        """
        local mailbox = require("mailbox")
        local inbox = mailbox.inbox(64)
        raises("receive-only", inbox.send, inbox, "x")
        local outbox = mailbox.outbox(64)
        raises("send-only", outbox.receive, outbox)
        raises("fifo or size expected", mailbox.inbox, "64")
        raises("fifo or size expected", mailbox.outbox)
        """
    )


def test_a_message_that_does_not_fit_leaves_no_trace(check: Check) -> None:
    check(
        """
        local mailbox = require("mailbox")
        local inbox = mailbox.inbox(32)
        local outbox = mailbox.outbox(inbox.queue, inbox.event)
        outbox:send("fits")
        raises("not enough space", outbox.send, outbox, ("x"):rep(32))
        assert(inbox:receive(0) == "fits")
        local message, why = inbox:receive(0)
        assert(message == nil and why == "timeout", why)
        """
    )


def test_a_torn_message_is_an_error(check: Check) -> None:
    check(
        r"""
        local mailbox, fifo = require("mailbox"), require("fifo")
        local queue = fifo.new(64)
        queue:push("\5")
        raises("malformed", mailbox.inbox(queue).receive, mailbox.inbox(queue))
        queue:push("\5\0\0\0abc")
        raises("malformed", mailbox.inbox(queue).receive, mailbox.inbox(queue))
        queue:push("\255\255\255\255abc")
        raises("", mailbox.inbox(queue).receive, mailbox.inbox(queue))
        """
    )


def test_a_softirq_script_sends_to_a_waiting_thread(
    machine: Machine, check: Check, other: Callable[[str], None]
) -> None:
    other(
        """
        local mailbox = require("mailbox")
        return function(queue, event) mailbox.outbox(queue, event):send("from softirq") end
        """
    )
    machine.copy_to(
        b"""
        local mailbox = require("mailbox")
        return function(queue, event, done)
            local message = mailbox.inbox(queue, event):receive(5000)
            if message == "from softirq" then done:complete() end
        end
        """,
        "/lib/modules/lua/waiter.lua",
    )
    check(
        """
        local lunatik, completion = require("lunatik"), require("completion")
        local inbox = require("mailbox").inbox(64)
        local done = completion.new()
        local sender = lunatik.runtime("other", "softirq")
        local waiter = lunatik.runtime("waiter")
        sender:resume(inbox.queue, inbox.event)
        waiter:resume(inbox.queue, inbox.event, done)
        assert(done:wait(5000))
        sender:stop() waiter:stop()
        """
    )
