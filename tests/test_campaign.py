"""Malformed input at every entry point: no traceback, no hang, no GB more, and the good among the bad comes out

A short form in `make test`, the long one by `make campaign` (SER_NB_CAMPAIGN=long): more than 10,000 inputs,
with a table of them at its end.
"""
import os

import pandas as pd
import pytest
from campaign import DOORS, LONG, MEMORY_MB, run_batches

pytestmark = pytest.mark.jobs


@pytest.fixture(scope='module')
def table(request):
    rows = []
    yield rows
    if not LONG: return
    found = pd.DataFrame(rows, columns='door kind inputs works refused faults agreed most_MB'.split())
    # without what the decoders say of each file
    with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
        print(
            f"\n{found.to_string(index=False)}\n{found.inputs.sum():,} inputs: {found.works.sum():,} work,"
            f" ({found.agreed.sum():,} as a second decoder has it), {found.refused.sum():,} are refused by name,"
            f" {found.faults.sum():,} faults; at most"
            f" {found.most_MB.max()} MB over the base")


@pytest.mark.parametrize('door', [d for d in DOORS if LONG or DOORS[d].short])
def test_a_door_refuses_by_name_and_lets_the_good_through(door, table, tmp_path):
    counts, mb = run_batches(door, tmp_path)
    for kind in DOORS[door].kinds:
        n = {
            o: sum(k for (name, said), k in counts.items() if name == kind and said.startswith(o))
            for o in ('works', 'refused', 'fault')}
        agreed = sum(k for (name, said), k in counts.items() if name == kind and 'second decoder' in said)
        table.append((door, kind, sum(n.values()), *n.values(), agreed, round(mb)))
        if log := os.environ.get('SER_NB_CAMPAIGN_LOG'): # at once, for who may have to stop it
            with open(log, 'a') as f: print(*table[-1], file=f, flush=True)
    faults = [said for _, said in counts if said.startswith('fault')]
    assert not faults and mb < MEMORY_MB, '\n\n'.join([f'{len(faults)} faults, {mb:.0f} MB', *faults[:5]])
