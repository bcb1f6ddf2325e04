"""Turns the recordings of the Free Spoken Digit Dataset into one CSV: a row a clip, the speaker in the key column.

    python examples/spoken_digits/prepare.py FSDD.tar.xz [OUT.csv]

Per clip: frames of 256 samples every 128, Hann window, power spectrum, 20 mel bands from 60 to 4000 Hz,
log(1e-6 + x), interpolated to 16 frames, minus the clip's own mean, over its own deviation: 320 numbers.
Nothing is computed across clips, so there is no statistic to share.
"""

import csv
import io
import sys
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RATE, WINDOW, HOP, BANDS, FRAMES = 8000, 256, 128, 20, 16
LOW_HZ, HIGH_HZ = 60.0, 4000.0


def mel_filters() -> np.ndarray:
    """Triangles [BANDS, WINDOW/2 + 1], equally wide on the mel scale m = 2595 log10(1 + f/700)."""
    edges = np.linspace(2595 * np.log10(1 + LOW_HZ / 700), 2595 * np.log10(1 + HIGH_HZ / 700), BANDS + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    left, centre, right = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    return np.clip(np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)), 0, None)


def features(signal: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] -> [BANDS * FRAMES], mean 0 and deviation 1 over the clip.

    >>> tone = np.sin(np.arange(4000) / 5)
    >>> x = features(tone, mel_filters())
    >>> x.shape, bool(abs(x.mean()) < 1e-6), bool(abs(x.std() - 1) < 1e-3)
    ((320,), True, True)
    """
    signal = np.pad(signal, (0, max(0, WINDOW - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    logs = np.log(1e-6 + power @ filters.T)  # [frames, BANDS]
    at = np.linspace(0, len(logs) - 1, FRAMES)
    grid = np.stack([np.interp(at, np.arange(len(logs)), band) for band in logs.T])  # [BANDS, FRAMES]
    return ((grid - grid.mean()) / (grid.std() + 1e-6)).ravel()


def clips(archive: Path) -> Iterator[tuple[str, str, int, np.ndarray]]:
    """(speaker, digit, index, samples) of each DIGIT_SPEAKER_INDEX.wav in the archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".wav"):
                continue
            digit, speaker, index = Path(member.name).stem.split("_")
            with wave.open(io.BytesIO(tar.extractfile(member).read())) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
            yield speaker, digit, int(index), samples / 32768


def main() -> None:
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "spoken.csv"
    filters = mel_filters()
    rows = sorted(clips(Path(sys.argv[1])), key=lambda row: row[:3])
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["speaker", "digit", *(f"band{b:02d}_{t:02d}" for b in range(BANDS) for t in range(FRAMES))])
        for speaker, digit, _, samples in rows:
            writer.writerow([speaker, digit, *(f"{value:.4f}" for value in features(samples, filters))])
    print(f"{out}: {len(rows)} clips of {len({row[0] for row in rows})} speakers")


if __name__ == "__main__":
    main()
