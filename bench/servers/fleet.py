"""Calls to one server, or to several servers of one model. Each answer is checked before it is handed on.

The requests run on an event loop of their own, in a thread: only there can a whole answer be given a time. Whatever is
not said to be called from outside runs on that loop, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from bench.chat import Messages, messages
from bench.errors import BackendError
from bench.progress import duration, say
from bench.records import Call, Completion, Prompt
from bench.servers.alike import PROBE, Sighting, look, unlike
from bench.servers.answers import UnusableError, completion_in
from bench.servers.member import Asked, Member
from bench.servers.server import CONNECT_SECONDS, GO_ON, FailedError, Problem, Server, key_in_environment
from bench.servers.settings import OpenAISettings
from bench.servers.soft import SoftPrompts

PATIENCE = 20
"""How many calls in a row may be refused before it is the server that refuses, and not a prompt that is at fault."""
LOOK_SECONDS = 180.0
"""How long what is asked of a server before it gets calls may take, all together: its first prompt of vectors took one
that shares two cores with ten other processes more than a minute."""
FIRST_REST = 5.0
LONGEST_REST = 300.0
"""Seconds until a server that failed is looked at again: twice as many each time."""
FALLS = 3
"""How many servers one call may see fail for each that there is, some of them come back: more, and it is the call."""


class Client:
    """Sends calls for `model` to the servers of `settings`, to each at most `concurrency` at a time, and a call to the
    one with the least on their way.

    The key is read from the environment variable OPENAI_API_KEY and goes nowhere else. A call that every server refuses
    for what is in it leaves the others going. A server that fails loses its calls to the others and is looked at again
    later; once the last one has failed no further call is sent, and the answers to those on their way still arrive.
    `variables` are sent for the chat template; `turns` makes a prompt's conversation; `soft` makes prompts of vectors.
    Raises `BackendError` where no client can be made, for servers that are not alike, and for one that takes no vectors
    where there are any.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        model: str,
        variables: Mapping[str, Any] | None = None,
        turns: Callable[[Prompt], Messages] = messages,
        soft: SoftPrompts | None = None,
    ) -> None:
        self._settings = settings
        self._soft = soft
        key = key_in_environment()
        self._members = [
            Member(Server(settings, address, key, model, variables or {}, turns)) for address in settings.addresses
        ]
        self._sighting = Sighting()
        """What all servers have in common."""
        self._loop = asyncio.new_event_loop()
        self._resting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Asked] = deque()
        self._moved: list[Asked] = []
        """Calls that a server could not answer, before all that wait."""
        self._answers: SimpleQueue[tuple[Call, Completion | None]] = SimpleQueue()
        self._failure: BackendError | None = None
        self._refused: list[tuple[Asked, FailedError]] = []
        self._kept: list[tuple[Call, Completion]] = []
        """Empty answers, handed on once all others are there: a server that gives nothing else leaves none behind."""
        self._asked = self._open = 0
        # A daemon: a process that gives up need not wait for an answer that may never come.
        self._thread = Thread(target=self._run, name="openai", daemon=True)
        self._thread.start()
        if len(self._members) > 1 or soft is not None:
            # What loads a tokenizer does so here: it would stop the clock of every request.
            turns(PROBE.prompt)
            try:
                asyncio.run_coroutine_threadsafe(self._meet(), self._loop).result()
            except BaseException:
                self.close()
                raise

    @property
    def where(self) -> str:
        """The servers, as the beginning of a sentence about them."""
        first, *others = (member.server.where for member in self._members)
        return first if not others else f"one of the servers ({first} and {len(others)} more)"

    def submit(self, call: Call, tokens: int | None = None) -> None:
        """Queue a call. `tokens`: how many its prompt has, where that is known."""
        self._open += 1
        self._asked += 1
        asked = Asked(self._asked, call, tokens, time.perf_counter())
        self._loop.call_soon_threadsafe(self._queue, asked)

    def _run(self) -> None:
        """The thread: the event loop until `close` stops it."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._drop())
        self._loop.close()

    async def _drop(self) -> None:
        """Give up what is on its way."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members:
            await member.server.close()

    # ---- who joins

    async def _meet(self) -> None:
        """Look at all servers at once. Raises `BackendError`."""
        found = await asyncio.gather(*(self._look(member) for member in self._members))
        sightings = {}
        for member, sighting in zip(self._members, found, strict=True):
            if isinstance(sighting, Sighting):
                sightings[member.server.where] = sighting
            else:
                member.failed = sighting
        for member in self._members:
            if member.failed and (not member.failed.problem.passing or not sightings):
                raise self._none_left() if not sightings else BackendError(str(member.failed))
        if why := unlike(sightings):
            raise BackendError(
                f"the servers are not alike: {why}; give all of them the same model, settings and version, or leave "
                "some out"
            )
        self._sighting = next(iter(sightings.values()))
        for member in self._members:
            if member.failed:
                self._rest(member, "it is left alone")

    async def _look(self, member: Member) -> Sighting | FailedError:
        """What a server is, after as many tries as it needs."""
        try:
            sighting = await member.server.patiently(partial(self._see, member), seconds=LOOK_SECONDS)
        except FailedError as error:
            return error
        member.server.was_down = False
        return sighting or Sighting()

    async def _see(self, member: Member) -> Sighting:
        """What a server is, once it is known to take vectors where there are any."""
        # A server alone is not compared with anything.
        sighting = await look(member.server) if len(self._members) > 1 else Sighting()
        if self._soft is not None:
            await self._soft.try_out(member.server)
        return sighting

    async def _recognise(self, member: Member) -> None:
        """Look at a server that may have been started anew since it was last looked at. Raises `FailedError` for one
        that is another now, and what a failed request raises."""
        async with member.looked_at:
            if not member.server.was_down:
                return
            try:
                why, mend = unlike({"before": self._sighting, "now": await self._see(member)}), f". {GO_ON}"
            except UnusableError as error:
                why, mend = f"it {error.why}", error.mend
            if why:
                problem = Problem(f"was started anew, and is not what it was: {why}", mend, passing=False)
                raise FailedError(member.server.where, problem, 1)
            member.server.was_down = False

    def _rest(self, member: Member, what: str) -> None:
        """Leave a server alone that failed, and look at it again later."""
        assert member.failed is not None
        say(f"{member.failed.brief}; {what}, and tried again in {duration(FIRST_REST)}")
        task = self._loop.create_task(self._until_it_is_back(member))
        self._resting.add(task)
        task.add_done_callback(self._resting.discard)

    async def _until_it_is_back(self, member: Member) -> None:
        rest = FIRST_REST
        while True:
            await asyncio.sleep(rest * random.uniform(0.75, 1.0))
            rest = min(2 * rest, LONGEST_REST)
            sighting = await self._look(member)
            if isinstance(sighting, FailedError):
                continue
            if why := unlike({"before": self._sighting, "now": sighting}):
                say(f"{member.server.where} is back, but not what it was: {why}; it is left out")
                return
            say(f"{member.server.where} is back")
            member.failed, member.in_a_row = None, 0
            self._spread()
            return

    # ---- who answers

    def _queue(self, asked: Asked) -> None:
        self._waiting.append(asked)
        self._spread()

    def _spread(self) -> None:
        """Give the servers what waits and they have room for; nothing any more after a failure for good."""
        if self._failure is not None:
            for asked in (*self._moved, *self._waiting):
                self._answers.put((asked.call, None))
            self._moved, self._waiting = [], deque()
            return
        for asked in [*self._moved]:
            open_to = [one for one in self._members if not one.failed and one not in asked.refused]
            if not open_to:
                self._moved.remove(asked)
                self._set_aside(asked)
            elif (member := self._free(open_to)) is not None:
                self._moved.remove(asked)
                self._begin(asked, member)
        up = [one for one in self._members if not one.failed]
        while self._waiting and (member := self._free(up)) is not None:
            self._begin(self._waiting.popleft(), member)

    def _free(self, members: list[Member]) -> Member | None:
        """The server with the least on their way; None where all have as much as they may."""
        member = min(members, key=lambda one: len(one.open))
        return member if len(member.open) < self._settings.concurrency else None

    def _begin(self, asked: Asked, member: Member) -> None:
        task = self._loop.create_task(self._work(asked, member))
        member.open[task] = asked

    async def _work(self, asked: Asked, member: Member) -> None:
        task = asyncio.current_task()
        assert task is not None
        answer = partial(self._answer, asked, member)
        try:
            completion = await member.server.patiently(answer, lambda: self._failure is not None)
        except FailedError as error:
            member.open.pop(task, None)
            self._without_answer(asked, member, error)
        except Exception as error:  # noqa: BLE001 - it would vanish with the task; `completed` raises it
            why = f"{member.server.where} failed: {member.server.brief(error)} {GO_ON}"
            self._failure = self._failure or BackendError(why)
            self._answers.put((asked.call, None))
        else:
            member.in_a_row = 0
            self._answers.put((asked.call, completion))
        finally:
            member.open.pop(task, None)
            self._spread()

    async def _answer(self, asked: Asked, member: Member) -> Completion:
        """One try."""
        await self._recognise(member)
        server = member.server
        if self._soft is not None and asked.call.prompt.slots:
            content = await server.complete(asked.call, await self._soft.body(asked.call, server))
        else:
            content = await server.converse(asked.call)
        seconds = time.perf_counter() - asked.started
        completion = completion_in(content, asked.tokens, seconds, server.short)
        return completion if self._soft is None else self._soft.whole(asked.call, completion)

    def _without_answer(self, asked: Asked, member: Member, error: FailedError) -> None:
        """What becomes of a call that a server has no answer for: another server gets it, or nobody has an answer."""
        member.in_a_row += 1
        if self._failure is not None:
            self._answers.put((asked.call, None))
            return
        if error.problem.of_call and member.in_a_row <= PATIENCE:
            asked.refused[member] = error
        elif member.failed is None:
            asked.falls += 1
            self._fail(member, error, asked)
        self._moved.append(asked)

    def _fail(self, member: Member, error: FailedError, asked: Asked) -> None:
        """A server failed: the others get its calls; if there are none, or the call makes one after the other fail,
        that is the end."""
        member.failed = error
        if all(one.failed for one in self._members):
            self._failure = self._none_left()
            return
        if asked.falls > FALLS * len(self._members):
            self._failure = BackendError(
                f"{asked.falls} servers failed one after the other with {asked.call.key[0]} "
                f"({asked.call.key[1]}), the last time {error}"
            )
            return
        moved = len(member.open) + 1
        for task, other in [*member.open.items()]:
            task.cancel()
            self._moved.append(other)
        member.open.clear()
        self._rest(member, f"the others get its {moved} calls: it is left alone")

    def _none_left(self) -> BackendError:
        """Of the servers, all of which failed."""
        failed = [member.failed for member in self._members if member.failed]
        if len(failed) == 1:
            return BackendError(str(failed[0]))
        named = "; ".join(error.brief for error in failed)
        return BackendError(f"none of {len(failed)} servers is left: {named}{failed[-1].problem.mend}")

    def _set_aside(self, asked: Asked) -> None:
        """A call that all servers refused: kept as an empty one, or told of at the end."""
        error = next(reversed(asked.refused.values()))
        problem = error.problem
        if problem.finish is not None and self._settings.empty == "keep":
            seconds = time.perf_counter() - asked.started
            self._kept.append((asked.call, Completion(problem.text, None, None, problem.finish, seconds)))
        else:
            self._refused.append((asked, error))
        self._answers.put((asked.call, None))

    # ---- what comes of it

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are there, waiting for the first; empty ones that are kept once nothing else is open. Raises
        `BackendError`, after the good answers, also to the calls that were on their way by then, for servers that
        failed; once nothing else is open, for calls that they refused."""
        if not self._open and self._kept and not self._failure:
            kept, self._kept = self._kept, []
            yield from kept
            return
        if not self._open and self._refused:
            raise self._refusal()
        first = True
        while self._open and (first or self._failure or not self._answers.empty()):
            first = False
            call, answer = self._answers.get()
            self._open -= 1
            if answer is not None:
                yield call, answer
        if self._failure:
            raise self._failure

    def _refusal(self) -> BackendError:
        """Of all calls that were refused for what is in them."""
        # Answers come in any order.
        refused = sorted(self._refused, key=lambda one: one[0].number)
        first, error = refused[0]
        named = ", ".join(dict.fromkeys(f"{asked.call.key[0]} ({asked.call.key[1]})" for asked, _ in refused[:5]))
        more = ", ..." if len(self._refused) > 5 else ""
        count = f"{len(self._refused)} of {self._asked} calls have no answer, {named}{more}; the others are kept."
        return BackendError(f"{count} For {first.call.key[0]} {error.without_tries}")

    def close(self) -> None:
        """Drop queued calls and the answers to those on their way."""
        self._failure = self._failure or BackendError("the backend is closed")
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_SECONDS)
