"""Makes texts and a base model, tunes an adapter by four clinics, and tells what each gained.

python -m examples.llm_clinics [--folder DIR] [--model FOLDER] [--data-dir DIR] [key=value ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import manyloom as ml
from examples.llm_clinics import base, texts
from manyloom.job.toml import parse_override

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Run it; each clinic's loss on texts held out, before and after."""
    ask = argparse.ArgumentParser(description="four clinics tune one adapter; no text leaves")
    ask.add_argument("--folder", type=Path, default=Path("llm-clinics"), help="where texts and base are put")
    ask.add_argument("--model", type=Path, help="a base model of your own, a folder that transformers opens")
    ask.add_argument("--data-dir", type=Path, help="take four public sets from here, in place of made-up notes")
    ask.add_argument("--rows", type=int, default=60, help="texts a clinic")
    ask.add_argument("--steps", type=int, default=300, help="of the small base's own training")
    ask.add_argument("overrides", nargs="*", help="as in job.rounds=3")
    given = ask.parse_args(arguments)
    clinics = texts.public(given.data_dir, given.rows) if given.data_dir else texts.made(given.rows)
    texts.write(given.folder / "texts", clinics)
    model = given.model or given.folder / "base"
    if given.model is None:
        said = texts.general(3000)
        loss = base.make(model, said, list(texts.words(said, *clinics.values())), steps=given.steps)
        print(f"base     a Llama of 4 layers, trained here to a loss of {loss:.3f}")
    changes: dict[str, object] = {"model.base": str(model.resolve())} | dict(map(parse_override, given.overrides))
    job = ml.Job.from_toml(str(HERE / "clinics.toml"), changes, base=str(given.folder.resolve()))
    found: dict[int, list[float]] = {}
    for event in ml.run(job):
        if event.type == "evaluated":
            for client, told in event.clients.items():
                found.setdefault(client, []).append(told["loss"])
        elif event.type in ("round_done", "sample", "combined"):
            print(event)
        last = event
    names, result = job.federation.names, {}
    print(f"\n{'held-out loss':<14}{'before':>9}{'after':>9}{'perplexity after':>18}")
    for client, losses in sorted(found.items()):
        result[names[client]] = (losses[0], losses[-1])
        perplexity = 2.718281828459045 ** losses[-1]
        print(f"{names[client]:<14}{losses[0]:>9.3f}{losses[-1]:>9.3f}{perplexity:>18.2f}")
    print(f"adapter  {last.result.folder / 'adapter'}")
    return result


if __name__ == "__main__":
    main()
