"""What is told of a run that tunes a language model: lines, report, card, ending, show, comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manyloom.core.text import event_line, plain_line
from manyloom.track import card, compare, text
from manyloom.track.record import Run, of_events
from manyloom.track.report import html
from manyloom.track.view import View, joined

from . import streams
from .browser import Browser, chromium
from .test_report import sound

ERRORS: dict[str, tuple[float | None, bool]] = {
    "svd": (0.02, False),
    "alone": (1e-15, False),  # one client: its adapter is the best of its rank
    "fedavg": (None, False),
    "ffa": (0.0, True),
    "rolora": (0.0, True),
}
KINDS: dict[str, dict[str, Any]] = {
    "demo": {},
    "ffa": {"rule": "ffa"},
    "rolora": {"rule": "rolora"},
    "alone": {"rule": "alone", "names": ["here"]},
    "secure": {"rule": "fedavg", "told": False},
    "many": {"names": [f"ward {i}" for i in range(30)], "rounds": 60},
    "one": {"names": ["here"], "rounds": 1, "dropped": 3},
    "cut": {"rounds": 2, "planned": 5, "end": "failed"},
    "bare": {"rounds": 0, "planned": 5, "end": None},
    "odd": {"names": ['<b>&"x', "y" * 60], "prompts": ('<i>"&', "a\nb\x1b[31m"), "dropped": 1},
}


def run(
    *,
    rule: str = "svd",
    names: list[str] | None = None,
    rounds: int = 5,
    planned: int | None = None,
    told: bool = True,
    dropped: int = 0,
    prompts: tuple[str, ...] = ("What hurts?", "And since when?"),
    end: str | None = "done",
) -> Iterator[dict[str, Any]]:
    """A run's events, by a formula."""
    names = names or ["clinic0", "clinic1", "clinic2"]
    started = streams.started(names, planned or rounds, name="notes")
    more = {"model": {"name": "causal-lm", "parameters": 896}, "target": "text", "classes": [], "watch": "loss"}
    more |= {"metrics": ["loss", "perplexity", "token_accuracy"], "row_word": ["conversation", "conversations"]}
    started |= {**more, "clients": [c | {"labels": []} for c in started["clients"]]}
    made: list[dict[str, Any]] = [started, {"type": "planned", "bytes_up_round": 14384, "bytes_down_round": 14336}]
    made.append({"type": "adapter", "base": "tiny-llama", "base_digest": "8d5522a6caaf7f88",
                 "targets": ["q_proj", "v_proj"], "matched": 4, "d": 896, "r": 4, "scale": 4.0,
                 "dtype": "float32", "combine": rule, "base_parameters": 44192})  # fmt: skip
    if told:
        made += [{"type": "tokens", "client": i, "name": n, "rows": 24 + i, "supervised": 440 + i, "dropped": dropped,
                  "shortened": i} for i, n in enumerate(names)]  # fmt: skip
    made += [{"type": "sample", "round": 0, "prompt": p, "text": "Lorem"} for p in prompts]
    made.append(judged(0, len(names)))
    for r in range(1, rounds + 1):
        cohort = list(range(len(names)))
        made.append({"type": "round_started", "round": r, "attempt": 0, "cohort": cohort, "asked": len(names)})
        made += [{"type": "client_done", "round": r, "client": i, "samples": 440} for i in cohort]
        mean, exact = ERRORS[rule]
        most = None if mean is None else 3 * mean
        made.append({"type": "combined", "round": r, "rule": rule, "agg_error_mean": mean, "agg_error_max": most,
                     "exact": exact, "covered": exact})  # fmt: skip
        e = judged(r, len(names))
        made += [e, {"type": "round_done", "round": r, "attempt": 0, "asked": len(names), "back": len(names), "lost": 0,
                     "metrics": e["metrics"], "watch": "loss", "seconds": 0.3, "phases": {"train": 0.25},
                     "bytes_up": 3596 * len(names), "bytes_down": 3584 * len(names)}]  # fmt: skip
    if end == "done":
        texts = ["My head, since May.\n<b>Sir", *["Lorem"] * len(prompts)]
        made += [{"type": "sample", "round": rounds, "prompt": p, "text": t} for p, t in zip(prompts, texts)]
    if end:
        made.append({"type": "run_done", "status": end, "final": judged(rounds, 1)["metrics"]})
    for k, event in enumerate(made):
        yield {"seq": k + 1, "t": (streams.START + timedelta(seconds=k)).isoformat(), **event}


def judged(r: int, n: int) -> dict[str, Any]:
    def of(i: int) -> dict[str, Any]:
        loss = 3.0 * math.exp(-r / 8) + 0.01 * i
        return {"loss": loss, "perplexity": math.exp(loss), "token_accuracy": 0.5 - loss / 10}

    clients = {str(i): of(i) | {"rows": 110 + i} for i in range(n)}
    return {"type": "evaluated", "round": r, "split": "test", "metrics": of(0), "clients": clients, "rows": 446,
            "positives": None, "spread": {}, "bytes_up": 100, "bytes_down": 900, "seconds": 0.01}  # fmt: skip


@cache
def made(kind: str) -> Run:
    found = of_events(run(**KINDS[kind]))
    found.toml, found.env = '[job]\nname = "notes"\n' + ("\n[secure]\n" if kind == "secure" else ""), streams.ENV
    return found


@cache
def page(kind: str) -> str:
    return html(made(kind)).replace("\u202f", " ").replace("\u00a0", " ")


def part(kind: str, name: str) -> str:
    """A section's words."""
    found = re.search(rf'<section id="{name}".*?</section>', page(kind), re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]+>", " ", found[0], flags=re.DOTALL)) if found else ""


# ---- lines


@pytest.mark.parametrize(("event", "line"), [
    ({"type": "adapter", "base": "tiny llama", "targets": ["q_proj", "v_proj"], "matched": 4, "d": 896, "r": 4,
      "combine": "svd"}, "adapter  tiny-llama q_proj,v_proj matrices=4 rank=4 numbers=896 combine=svd"),
    ({"type": "adapter", "base": "b", "targets": list("abcdefg"), "matched": 14, "d": 4096, "r": 4, "combine": "ffa"},
     "adapter  b targets=7 matrices=14 rank=4 numbers=4096 combine=ffa"),
    ({"type": "tokens", "client": 1, "name": "Ward 1", "rows": 24, "supervised": 448, "dropped": 0, "shortened": 2},
     "tokens   ward-1 rows=24 supervised=448 dropped=0 shortened=2"),
    ({"type": "combined", "round": 3, "rule": "svd", "agg_error_mean": 0.00433, "agg_error_max": 0.0084},
     "combined 3 svd 0.0043/0.0084"),
    ({"type": "combined", "round": 3, "rule": "ffa", "agg_error_mean": 0.0, "agg_error_max": 0.0, "exact": True},
     "combined 3 ffa exact"),
    ({"type": "combined", "round": 3, "rule": "fedavg", "agg_error_mean": None, "agg_error_max": None, "exact": False},
     "combined 3 fedavg unseen"),
    ({"type": "sample", "round": 0, "prompt": "a\nb\x1b[1m", "text": "x " * 80},
     f'sample   0 "a b [1m" "{"x " * 29}x…"'),
])  # fmt: skip
def test_event_lines(event: dict[str, Any], line: str) -> None:
    assert event_line(event) == line


def test_plain_mode_says_the_adapter_and_no_line_a_client() -> None:
    kinds = [e["type"] for e in run() if plain_line(e) is not None]
    assert "adapter" in kinds and not {"tokens", "combined", "sample"} & set(kinds)
    assert max(len(event_line(e)) for e in run() if e["type"] != "sample") <= 80


def test_a_round_names_its_metrics_in_the_jobs_order() -> None:
    event = next(e for e in run() if e["type"] == "round_done")
    assert re.match(r"round    1 loss \S+ perplexity \S+ ", event_line(event))  # each time: no set decides


# ---- report


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_sections_and_counts_tokens(kind: str) -> None:
    shown = page(kind)
    for name in ("adapters", "samples"):
        assert f'id="{name}"' in shown
    for gone in ("AUC", "label", "accuracy_", "token_accuracy", "446 held-out conversations", "nan", "None</"):
        words = re.sub(r"aria-label|<pre.*?</pre>", "", shown.split("<main>")[1].split("</main>")[0], flags=re.DOTALL)
        assert gone not in words, gone
    assert '<b>&"x' not in shown and "<b>Sir" not in shown


def test_other_runs_have_none_of_it() -> None:
    found = html(of_events(streams.run(rounds=2)))
    assert 'id="adapters"' not in found and 'id="samples"' not in found


def test_the_result_is_of_tokens_and_says_the_perplexity() -> None:
    said = part("demo", "result")
    assert "Three hospitals tuned one language model and no conversation moved." in said
    assert re.search(r"On 446 held-out tokens it reaches loss 1\.606 \(perplexity 4\.982\)", said), said[:400]


def test_adapters_say_where_and_how_exact() -> None:
    said = part("demo", "adapters")
    for words in ("Four matrices of tiny-llama", "896 numbers beside 44 192", "q_proj, v_proj: 4 matrices",
                  "8d55 22a6", "FlexLoRA", "off by 2 % of a round’s update, at most 6 %", "0.02 in round 5",
                  "3.6 kB up"):  # fmt: skip
        assert words in said, words
    for kind in ("ffa", "rolora"):
        assert "Exact by construction" in part(kind, "adapters") and "off by" not in part(kind, "adapters")
    secure = part("secure", "adapters")
    assert "can’t be seen" in secure and "off by" not in secure and "not zero" in secure
    alone = part("alone", "adapters")
    assert "Exact to rounding" in alone and "off by" not in alone
    assert "nothing was combined" in part("bare", "adapters")


def test_texts_are_counted_where_they_may_be_told() -> None:
    said = part("demo", "data")
    assert "1 323 tokens of the training conversations count in the loss" in said
    assert "3 texts cut to length" in said and "clinic2" in said
    assert "3 texts dropped" in part("one", "data")
    assert "count in the loss" not in part("secure", "data") and "stayed there" in part("secure", "data")
    assert "ward 7 31 447 0 7" not in part("many", "data")  # of many the totals alone


def test_samples_stand_before_and_after() -> None:
    said = part("demo", "samples")
    assert "To 1 of 2 prompts it says something else" in said
    assert "My head, since May." in said and said.count("Lorem") == 3
    assert "has not come to its end" in part("cut", "samples") and "at the end" not in part("cut", "samples")
    assert "asked again at the end" in part("bare", "samples")
    assert "\x1b" not in page("odd")


# ---- card, show, comparison, live


def test_the_card_is_of_an_adapter() -> None:
    found = card.card(made("demo"))
    for words in ("library_name: peft", "pipeline_tag: text-generation", "lora", "446 held-out tokens",
                  "adapter for the language model `tiny-llama` (4 adapters of rank 4: 896 of 44 192 parameters)",
                  "no conversation left its hospital", "combined by svd: error 0.02 in round 5",
                  "PeftModel.from_pretrained(base, \"adapter\")", "token accuracy"):  # fmt: skip
        assert words in found, words
    assert "tabular" not in found and "manyloom predict" not in found
    assert "one factor of each adapter, in turn" in card.card(made("rolora"))


def test_show_ending_and_comparison() -> None:
    shown = text.show(made("demo"))
    assert "adapter  rank 4 on 4 matrices of tiny-llama (q_proj and v_proj)" in shown
    assert "combined by svd: error 0.02 in round 5, at most 0.06 in a matrix" in shown
    assert "supervised tokens in 75 rows" in shown and '"What hurts?" "My head, since May. <b>Sir"' in shown
    assert max(map(len, shown.split("\n"))) <= 80
    assert "on 446 held-out tokens" in text.ending(made("demo"))
    beside = compare.human([made("demo"), of_events(run(rounds=7))])
    assert re.search(r"perplexity +4\.982 +\S+ +-", beside) and "conversations" not in beside


def test_live_display_has_words_for_perplexity() -> None:
    view = View()
    for e in run():
        view.feed(e | ({"watch": "perplexity"} if e["type"] == "run_started" else {}), 0.0)
    lines = joined(view.frame(1.0))
    assert "perplex. " in lines and "best 4.982 in round 5" in lines


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_looked_at(tmp_path: Path) -> None:
    with Browser() as browser:
        for kind in ("demo", "odd", "many"):
            path = tmp_path / f"{kind}.html"
            path.write_text(html(made(kind)), "utf-8")
            for width in (1280, 390):
                shown = browser.open(path, width)
                sound(shown)
                shown.close()
