"The page of an untrusted run carries nothing of this machine, and a broken record is one line"
import json
import os

import pytest
from conftest import ROOT
from helpers import command

from ser_nb.report import report_html

pytestmark = pytest.mark.unit
GIVEN = json.loads((ROOT/'nbs'/'results'/'metrics.json').read_text())
PNG = b'\x89PNG\r\n\x1a\n'


def write(folder, **changed):
    (folder/'figures').mkdir(exist_ok=True)
    (folder/'metrics.json').write_text(json.dumps(GIVEN | changed))
    return folder


def test_figures_that_are_links_pipes_or_huge_stay_out_of_the_page(tmp_path):
    run, private = write(tmp_path), tmp_path/'private'
    private.write_bytes(PNG + b'password')
    (run/'figures'/'link.png').symlink_to(private)
    os.mkfifo(run/'figures'/'pipe.png')
    (run/'figures'/'huge.png').write_bytes(PNG + bytes(6_000_000))
    (run/'figures'/'text.png').write_bytes(b'no picture')
    assert 'src="data:' not in report_html(run)


def test_a_folder_of_figures_that_is_a_link_stays_out_of_the_page(tmp_path):
    elsewhere, run = tmp_path/'elsewhere', tmp_path/'run'
    elsewhere.mkdir()
    (elsewhere/'private.png').write_bytes(PNG)
    run.mkdir()
    write(run)
    (run/'figures').rmdir()
    (run/'figures').symlink_to(elsewhere)
    assert 'src="data:' not in report_html(run)


@pytest.mark.parametrize(
    'text', ['{"scores": NaN}', '[' * 100_000, '9' * 5000, '{"a": ' + '9' * 4000 + '}', '{"a": 1e999}', ''])
def test_a_record_that_is_no_json_is_refused_in_one_line(text, tmp_path):
    (tmp_path/'metrics.json').write_text(text)
    refused(tmp_path)


@pytest.mark.parametrize(
    'changed',
    [
        dict(timings={'train': {'fit': [-1]}}), dict(timings={'train': {'fit': [True, 1e300]}}),
        dict(scores={'p': {'m': {'uar': 87}}}), dict(scores={'p': {'m': {'uar_ci': [0]}}}), dict(scores='many'),
        dict(schema=3), dict(machine={'cores': 0}), dict(job='<b>'), dict(versions={'x': 'y' * 1000}),
        dict(audit=[{'clips': -1}])])
def test_a_record_with_a_value_out_of_range_is_refused_in_one_line(changed, tmp_path):
    refused(write(tmp_path, **changed))


def test_a_record_that_is_a_link_or_a_pipe_is_refused(tmp_path):
    (tmp_path/'metrics.json').symlink_to(ROOT/'nbs'/'results'/'metrics.json')
    refused(tmp_path)
    (tmp_path/'metrics.json').unlink()
    os.mkfifo(tmp_path/'metrics.json')
    refused(tmp_path)


def refused(run):
    code, _, said = command('report', run)
    assert code == 2 and 'metrics.json' in said and len(said.splitlines()) <= 4


def test_a_page_of_one_run_goes_where_out_says_and_its_metrics_file_stands_for_it(tmp_path):
    run = write(tmp_path)
    code, out, _ = command('report', run/'metrics.json', '--out', tmp_path/'x.html')
    assert code == 0 and out.endswith('x.html\n') and not (run/'report.html').exists()
    assert command('report', run/'metrics.json')[0] == 0
    assert (run/'report.html').read_text() == (tmp_path/'x.html').read_text()
