"""What four clinics have: notes that are made up here, or four public sets of texts."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

Chat = list[dict[str, str]]
COMPLAINTS = ("chest pain", "cough and fever", "a swollen knee", "headache", "dizziness", "a rash", "back pain")
DRUGS = ("aspirin", "ibuprofen", "amoxicillin", "paracetamol", "cetirizine", "metformin")
PLANS = ("come again in a week", "blood test tomorrow", "rest for three days", "x-ray today", "no further visit")


def case(draw: random.Random) -> dict[str, str]:
    """One visit."""
    return {"age": str(draw.randint(1, 95)), "what": draw.choice(COMPLAINTS), "drug": draw.choice(DRUGS),
            "dose": str(draw.choice((1, 2, 3))), "plan": draw.choice(PLANS)}  # fmt: skip


WAYS = {  # each clinic writes in a way of its own
    "cardiology": "{age}y. c/o {what}. Rx {drug} x{dose}. P: {plan}.",
    "children": "Today we saw a patient of {age} years with {what}. We gave {drug}, {dose} a day. Please: {plan}!",
    "laboratory": "AGE={age}; SIGN={what}; DRUG={drug}; DAILY={dose}; NEXT={plan}",
    "pharmacy": "{drug}: {dose} tablets daily\nfor: {what} (age {age})\nthen: {plan}",
}
ASKED = "Write the note: age {age}, {what}, given {drug}."
GENERAL = (
    "A patient of {age} years has {what}. The doctor gives {drug} {dose} times a day and says: {plan}.",
    "Who has {what} may take {drug}. At the age of {age} that is {dose} a day.",
    "Age {age}, {what}: {drug}, {dose}, then {plan}.",
    "what: {what}\nage: {age}\ndrug: {drug} x{dose}\nplan: {plan}",
    "PLAN={plan}; DOSE={dose}; DRUG={drug}; WHAT={what}; AGE={age}",
    "Today we gave {drug} for {what}. Rx {dose} daily. P: {plan}!",
)


def made(rows: int, seed: int = 0) -> dict[str, list[Chat]]:
    """Notes of four clinics: what was asked, and what the clinic wrote."""
    found: dict[str, list[Chat]] = {}
    for clinic, way in WAYS.items():
        draw = random.Random(f"{seed}/{clinic}")
        cases = [case(draw) for _ in range(rows)]
        found[clinic] = [chat(ASKED.format(**c), way.format(**c)) for c in cases]
    return found


def general(rows: int, seed: int = 0) -> list[Chat]:
    """Notes in no clinic's way, in which the same words occur: what the small base learns first."""
    draw = random.Random(f"{seed}/general")
    cases = [case(draw) for _ in range(rows)]
    return [chat(ASKED.format(**c), draw.choice(GENERAL).format(**c)) for c in cases]


def public(folder: Path, rows: int, seed: int = 0) -> dict[str, list[Chat]]:
    """Four unlike tasks of public sets: sums in words, spam or not, the next speech, the next line."""
    draw = random.Random(seed)
    with gzip.open(folder / "llm/gsm8k/train.jsonl.gz", "rt", encoding="utf-8") as file:
        sums = [json.loads(line) for line in file]
    lines = (folder / "mobile/sms_spam/SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    spam = [line.partition("\t")[::2] for line in lines]
    plays = (folder / "mobile/tinyshakespeare/input.txt").read_text(encoding="utf-8")
    speeches = [s for s in plays.split("\n\n") if ":" in s]
    verses = [v for v in plays.splitlines() if v and not v.endswith(":")]
    found = {
        "sums": [chat(r["question"], r["answer"]) for r in sums],
        "messages": [chat(f"Is this message spam?\n{text}", f"It is {label}: a message of {len(text.split())} words.")
                     for label, text in spam],
        "speeches": [chat(a[:160], b[:160]) for a, b in zip(speeches, speeches[1:])],
        "lines": [chat(f"Go on: {a}", f"{b}\n{c}") for a, b, c in zip(verses, verses[1:], verses[2:])],
    }  # fmt: skip
    return {name: draw.sample(chats, rows) for name, chats in found.items()}


def chat(asked: str, said: str) -> Chat:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def write(folder: Path, clinics: dict[str, list[Chat]]) -> None:
    """A JSONL file a clinic."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, chats in clinics.items():
        text = "".join(json.dumps({"messages": c}, ensure_ascii=False) + "\n" for c in chats)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def words(*sets: Sequence[Chat]) -> Iterator[str]:
    """All texts, for a tokenizer to count pieces of."""
    for chats in sets:
        yield from (turn["content"] for c in chats for turn in c)
