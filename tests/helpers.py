"What tests of several files do; nothing heavy is imported before it is needed"
import subprocess
from contextlib import contextmanager


def command(*args):
    "The command in this process: (exit code, output, complaints); what a user would see as a traceback is raised"
    from click.testing import CliRunner

    from ser_nb.command_line import main
    done = CliRunner().invoke(main, [str(a) for a in args], prog_name='ser-nb')
    if done.exception and not isinstance(done.exception, SystemExit): raise done.exception
    assert done.exit_code in (0, 1, 2) and 'Traceback' not in done.stderr, done.stderr
    return done.exit_code, done.stdout, done.stderr


def write_noise(path):
    "A second of noise as a file"
    import numpy as np
    import soundfile as sf

    from ser_nb.audio import SR
    sf.write(path, np.random.default_rng(0).normal(size=SR) * .1, SR)
    return path


def voice(seconds):
    "Harmonics of a moving pitch in syllables: no speech, but predicted as one"
    import numpy as np

    from ser_nb.audio import SR
    t = np.arange(seconds * SR) / SR
    pitch = np.cumsum(140 + 30 * np.sin(2 * np.pi * .7 * t)) / SR
    sound = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20)) * (.55 + .45 * np.sin(2 * np.pi * 4 * t))
    return .1 * sound + .01 * np.random.default_rng(0).normal(size=len(t))


@contextmanager
def small_disk(folder, size):
    "A file system of that size in the memory, and a function that changes its options; skipped where none is allowed"
    import pytest
    (disk := folder/'disk').mkdir()
    def mount(options):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', disk], check=True, capture_output=True)
    try: mount(f'size={size}')
    except (OSError, subprocess.CalledProcessError) as e: pytest.skip(f'no file system can be mounted here ({e})')
    try: yield disk, lambda options: mount(f'remount,{options}')
    finally: subprocess.run(['umount', '-l', disk], check=True)
