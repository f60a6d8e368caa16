"""A job is sent once and its log arrives whole, however the link behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.errors import LinkLost, Permanent, Transient, Unreachable
from fleetdrv.follow import MAX_KILLED, SILENCE_SECONDS, Follower, Frames, JobEnd
from fleetdrv.jobs import Bundle, whole

JOB = Bundle(job="r1.outage.1", digest="d1", data=b"a tar")
LOGS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from((b"log 0 3\nabc", b"exit 0\n", b"beat 0 running\n", b"interrupted\n", b"\n", b"x"))
    ).map(b"".join),
)
CUTS = st.lists(st.integers(0, 80), max_size=5)
BEFORE_IT_ARRIVED = -1


def stream(log: bytes, pieces: list[int], end: bytes = b"exit 0\n", start: int = 0) -> bytes:
    """Return what launch.sh says of a log that grows by these pieces, from an offset on."""
    said, at = bytearray(b"beat %d claimed\n" % start if start % 2 else b""), start
    for piece in (*pieces, len(log)):
        chunk = log[at : max(at, min(len(log), at + piece))]
        said += b"log %d %d\n" % (at, len(chunk)) + chunk if chunk else b"beat %d running\n" % at
        at += len(chunk)
    return bytes(said) + end


@dataclass(slots=True)
class Clock:
    """A monotonic clock that a test moves."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(slots=True)
class FlakyLine:
    """A node that has the job's log, behind a link that dies after so many bytes, time and again."""

    log: bytes = b""
    pieces: list[int] = field(default_factory=list)
    end: bytes = b"exit 0\n"
    cuts: list[int] = field(default_factory=list)
    chunk: int = 7
    answer: tuple[int, bytes] = (0, b"")
    there: bool = False
    """Whether the job was claimed."""
    away: bool = False
    killed: int = 0
    """With this exit code, where the link does not die, but launch.sh on the node."""
    lasts: Callable[[], None] = lambda: None
    """What happens while a command runs."""
    node: str = "n1"
    calls: list[tuple[str, ...]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    redials: list[float] = field(default_factory=list)

    def run(
        self,
        argv: tuple[str, ...],
        *,
        step: str,
        stdin: bytes = b"",
        deadline_seconds: float,
        silence_seconds: float | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Play launch.sh."""
        assert argv[:4] == ("/bin/sh", "-c", whole("launch.sh"), "launch.sh")
        assert silence_seconds == SILENCE_SECONDS
        assert step == "outage"
        assert on_stdout
        self.calls.append(argv[4:])
        self.sent.append(stdin)
        self.deadlines.append(deadline_seconds)
        self.lasts()
        cut = self.cuts.pop(0) if self.cuts else None
        if cut == BEFORE_IT_ARRIVED:
            raise LinkLost("n1", step, "the link died")
        self.there = self.there or argv[4] == "launch"
        said = stream(self.log, self.pieces, self.end, int(argv[-1])) if self.there else b"missing\n"
        said = said if not self.answer[0] else b""
        alive = said if cut is None else said[:cut]
        for start in range(0, len(alive), self.chunk):
            on_stdout(alive[start : start + self.chunk])
        if cut is not None and self.killed:
            return self.killed, b"", b""
        if cut is not None:
            raise LinkLost("n1", step, "the link died")
        return self.answer[0], b"", self.answer[1]

    def redial(self, deadline_seconds: float) -> None:
        """Connect again, unless the node is gone."""
        self.redials.append(deadline_seconds)
        if self.away:
            raise Unreachable("n1", "connect", "timed out")


def a_follower(line: FlakyLine, shown: bytearray, now: Clock | None = None) -> Follower:
    """Return a follower that waits a minute."""
    return Follower(line=line, now=now or Clock(), on_log=shown.extend, deadline_seconds=60)


# ---- frames


@given(LOGS, st.lists(st.integers(1, 20), max_size=6), st.lists(st.integers(0, 30), max_size=20))
def test_a_log_arrives_byte_by_byte_as_it_is_however_it_is_cut(
    log: bytes, pieces: list[int], cuts: list[int]
) -> None:
    shown = bytearray()
    frames, said = Frames(shown.extend), stream(log, pieces, b"exit 78 toy: load\n")
    for cut in cuts:
        frames.feed(said[:cut])
        said = said[cut:]
    frames.feed(said)
    assert bytes(frames.log) == bytes(shown) == log
    assert frames.offset == len(log)
    assert frames.end == ("exit", "78", "toy:", "load")


def test_what_follows_the_end_is_not_read() -> None:
    frames = Frames(lambda _: None)
    frames.feed(b"interrupted\nlog 0 3\nabcexit 0\n")
    assert (frames.end, frames.offset) == (("interrupted",), 0)
    frames.feed(b"exit 0\n")
    assert frames.end == ("interrupted",)


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_gap_or_a_repetition_in_the_log_is_never_passed_on(offset: int) -> None:
    shown = bytearray()
    frames = Frames(shown.extend)
    frames.feed(b"log 0 3\nabc")
    with pytest.raises(ValueError, match=f"log frame at {offset}, expected 3"):
        frames.feed(b"log %d 2\nde" % offset)
    assert bytes(frames.log) == bytes(shown) == b"abc"


def test_half_a_frame_is_forgotten_when_the_link_is_new() -> None:
    frames = Frames(lambda _: None)
    frames.feed(b"log 0 3\nabclog 3 2\nd")
    assert (frames.offset, frames.end) == (3, None)
    frames.restart()
    frames.feed(b"log 3 2\ndeexit 0\n")
    assert (bytes(frames.log), frames.end) == (b"abcde", ("exit", "0"))


# ---- a job behind a bad link


@given(LOGS, st.lists(st.integers(1, 20), max_size=6), CUTS, st.integers(1, 40), st.booleans())
def test_a_link_lost_at_any_byte_leaves_no_gap_and_no_repetition(
    log: bytes, pieces: list[int], cuts: list[int], chunk: int, lost_before: bool
) -> None:
    shown = bytearray()
    first = [BEFORE_IT_ARRIVED] if lost_before else []
    line = FlakyLine(log=log, pieces=pieces, cuts=first + cuts, chunk=chunk)
    end = a_follower(line, shown).execute(JOB, "outage")
    assert end == JobEnd(job=JOB.job, exit_code=0, log=log)
    assert bytes(shown) == log
    assert len(line.redials) == len(line.calls) - 1
    offset = 0
    for call, sent in zip(line.calls, line.sent, strict=True):
        assert int(call[-1]) >= offset
        offset = int(call[-1])
        # A launch that may never have arrived is sent again; once a byte of its log came it is there.
        expected = ("attach", JOB.job, "outage") if offset else ("launch", JOB.job, JOB.digest, "outage")
        assert call[:-1] == expected
        assert sent == (b"" if offset else JOB.data)


@given(LOGS, CUTS)
def test_a_job_of_an_earlier_controller_is_followed_from_its_first_byte(log: bytes, cuts: list[int]) -> None:
    shown, line = bytearray(), FlakyLine(log=log, cuts=cuts, there=True)
    end = a_follower(line, shown).attach(JOB.job, "outage")
    assert end.log == bytes(shown) == log
    assert {call[:3] for call in line.calls} == {("attach", JOB.job, "outage")}
    assert line.calls[0][-1] == "0"
    assert set(line.sent) == {b""}


@pytest.mark.parametrize(
    ("said", "code", "step"),
    [
        (b"exit 0\n", 0, ""),
        (b"exit 78 toy: load and hold against the file\n", 78, "toy: load and hold against the file"),
        (b"interrupted\n", None, ""),
    ],
)
def test_the_end_of_a_job_is_told_as_the_node_tells_it(said: bytes, code: int | None, step: str) -> None:
    end = a_follower(FlakyLine(log=b"x\n", end=said), bytearray()).execute(JOB, "outage")
    assert (end.job, end.exit_code, end.failed_step, end.log) == (JOB.job, code, step, b"x\n")


def test_a_job_that_is_not_there_is_an_error_of_its_own() -> None:
    with pytest.raises(Permanent, match=r"n1: outage: job r1.outage.1: unexpected answer 'missing'"):
        a_follower(FlakyLine(), bytearray()).attach(JOB.job, "outage")


@pytest.mark.parametrize(
    ("errors", "last"),
    [
        (b"tar: short\nr1.outage.1: the bundle did not arrive whole\n", "r1.outage.1: the bundle"),
        (b"", "no reason given"),
    ],
)
def test_a_launch_that_is_refused_says_why(errors: bytes, last: str) -> None:
    line = FlakyLine(answer=(74, errors))
    with pytest.raises(Permanent, match=f"the job could not be started: exit 74: {last}") as caught:
        a_follower(line, bytearray()).execute(JOB, "outage")
    assert (caught.value.node, caught.value.step) == ("n1", "outage")
    assert caught.value.evidence == errors.decode().strip()
    assert len(line.calls) == 1


@pytest.mark.parametrize("code", [137, 143])
def test_a_follower_that_is_killed_on_the_node_is_a_lost_link_for_a_while(code: int) -> None:
    """As by a shutdown: the job is another process, and its log goes on at the same byte."""
    line = FlakyLine(log=b"abc\ndef\n", cuts=[12, 0, 3], killed=code)
    end = a_follower(line, bytearray()).execute(JOB, "outage")
    assert (end.exit_code, end.log, len(line.redials)) == (0, b"abc\ndef\n", 3)
    line = FlakyLine(cuts=[0] * 100, killed=code)
    with pytest.raises(Permanent, match=f"the job could not be started: exit {code}"):
        a_follower(line, bytearray()).execute(JOB, "outage")
    assert len(line.redials) == MAX_KILLED


def test_a_node_that_cannot_be_reached_again_is_a_lost_link_and_says_that_the_job_runs_on() -> None:
    line = FlakyLine(log=b"abc", cuts=[3], away=True)
    with pytest.raises(LinkLost, match="the link died; cannot reach the node again: timed out") as caught:
        a_follower(line, bytearray()).execute(JOB, "outage")
    assert caught.value.remedy == "the job runs on; the same command follows it again"
    assert isinstance(caught.value.__cause__, Unreachable)


def test_a_link_that_dies_after_the_last_word_takes_nothing_from_it() -> None:
    line = FlakyLine(log=b"abc", cuts=[1000], away=True)
    assert a_follower(line, bytearray()).execute(JOB, "outage") == JobEnd(job=JOB.job, exit_code=0, log=b"abc")
    assert line.redials == []


def test_a_deadline_ends_the_waiting_and_no_dial_begins_after_it() -> None:
    clock = Clock()
    line = FlakyLine(cuts=[0] * 50, lasts=lambda: setattr(clock, "seconds", clock.seconds + 25))
    with pytest.raises(Transient, match="the link is gone and the deadline passed") as caught:
        a_follower(line, bytearray(), clock).execute(JOB, "outage")
    assert caught.value.remedy == "the job runs on; the same command follows it again"
    assert line.deadlines == [60, 35, 10]
    assert line.redials == [35, 10]


def test_a_command_has_at_least_a_second() -> None:
    clock = Clock()
    line = FlakyLine(cuts=[0], lasts=lambda: setattr(clock, "seconds", 59.5))
    a_follower(line, bytearray(), clock).execute(JOB, "outage")
    assert line.deadlines == [60, 1.0]


def test_the_last_lines_of_a_log_are_its_evidence() -> None:
    log = "".join(f"line {number}\n" for number in range(30)).encode() + b"not \xff UTF-8"
    end = JobEnd(job="r1.stage.1", exit_code=1, log=log)
    assert end.tail(2) == "line 29\nnot \ufffd UTF-8"
    assert end.tail().splitlines()[0] == "line 11"
    assert JobEnd(job="r1.stage.1", exit_code=1).tail() == ""
