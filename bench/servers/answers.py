"""What a server of the OpenAI API answered, checked: a completion, or why it is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.records import Completion

SHORTENED = 0.75
"""A server that read less than this share of a prompt's tokens has cut it: other tokenizers differ by less."""
PASSING = (408, 409, 429)
"""Status codes that are worth another try, beside 5xx."""
THOUGHT = "thought and did not answer"
KEEP = "--set openai.empty=keep counts it as an empty text"


Short = Callable[[object, int], str]
"""Words in one line of at most so many characters, without what may be secret."""


@dataclass
class UnusableError(Exception):
    """An answer that is none. `passing`: another try may help; `finish`: as what it is kept, if it may be."""

    why: str
    passing: bool = True
    finish: str | None = None
    text: str = ""
    mend: str = ""


def completion_in(content: bytes, tokens: int | None, seconds: float, short: Short) -> Completion:
    """The completion in the body of an answer, to a prompt of so many tokens where that is known. Raises
    `UnusableError`, with the server's words as `short` makes them."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableError(f"did not answer in JSON ({short(content.decode(errors='replace'), 80)})") from None
    choice = _choice(answer, short)
    # To a whole prompt the text is an answer by itself, not a turn of a conversation.
    message = {"content": choice["text"]} if "text" in choice else choice.get("message")
    message = message if isinstance(message, dict) else {}
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    read = _count(usage.get("prompt_tokens"))
    completion = Completion(
        text=_text(message.get("content")),
        prompt_tokens=read,
        completion_tokens=_count(usage.get("completion_tokens")),
        finish_reason=str(choice.get("finish_reason") or "unknown"),
        seconds=seconds,
        shortened=read is not None and tokens is not None and read < SHORTENED * tokens,
    )
    if why := _why_without_text(message, completion):
        raise _without_text(short(why, 300), completion)
    return completion


def _choice(answer: Any, short: Short) -> dict[str, Any]:
    """The first choice of an answer. Raises `UnusableError`, with the server's words where it sends an error."""
    if not isinstance(answer, dict):
        raise UnusableError(f"answered with a {type(answer).__name__}, not an object")
    choices = answer.get("choices")
    found = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    choice = next((one for one in found if one.get("index") == 0), found[0] if found else {})
    error = answer.get("error") or choice.get("error") or choice.get("finish_reason") == "error"
    if error:
        words = error.get("message", error) if isinstance(error, dict) else error
        code = str(error.get("code")) if isinstance(error, dict) else ""
        passing = not code.isdecimal() or int(code) in PASSING or int(code) >= 500
        raise UnusableError(f"answered with an error: {short(words, 300)}", passing)
    if not choice:
        raise UnusableError("answered without choices")
    return choice


def _without_text(why: str, completion: Completion) -> UnusableError:
    """The error of an answer without text, with what to do about it."""
    reason = completion.finish_reason
    mend = f". {KEEP}"
    if why == THOUGHT:
        mend = (
            ". Give it more max_new_tokens, or no thoughts where the model's template can be told: "
            f"--set chat_template_kwargs.enable_thinking=false; {KEEP}"
        )
    # Thoughts that filled the answer would fill it again.
    passing = reason != "length"
    return UnusableError(f"{why} (finish_reason {reason})", passing, reason, completion.text, mend)


def _why_without_text(message: Mapping[str, Any], completion: Completion) -> str:
    """Why an answer is none, in words; empty for a text, also for one that the model itself left empty."""
    if completion.finish_reason == "content_filter":
        return "filtered the answer"
    if completion.said:
        return ""
    if refusal := message.get("refusal"):
        return f"refused: {refusal}"
    if message.get("tool_calls") or message.get("function_call"):
        return "called a tool instead of answering"
    if message.get("reasoning_content") or message.get("reasoning"):
        return THOUGHT
    return "" if isinstance(message.get("content"), str) else "answered without text"


def _text(content: Any) -> str:
    """The text of a message's content, which may be a list of parts; thoughts among them are left out. Raises
    `UnusableError` for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(_text_of_part(part) for part in content)
    raise UnusableError(f"answered with a {type(content).__name__} where the text should be")


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) and part.get("type") in (None, "text", "output_text") else None
    return text if isinstance(text, str) else ""


def _count(value: Any) -> int | None:
    """A number of tokens; None for anything that is not one: unknown is not 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
