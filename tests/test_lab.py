"JupyterLab as a newcomer meets it: open a notebook, pick the kernel, run all cells, see the picture"
import json, os, re, secrets, shutil, socket, subprocess, sys, time
from pathlib import Path

import nbformat, pytest

from conftest import ROOT, ser_nb

pytestmark = pytest.mark.skipif(Path(sys.prefix).name == '.venv-stock', reason='pages and lab are the same in both environments: tested in the default one')

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()
MINUTES = 12 # for all cells, on a machine that others use too; three to four of one core


def notebook_to_try(name, folder, run):
    "A copy without outputs, whose files go into `run`, without the folds, which take long; the sources of its cells"
    nb = nbformat.read(ROOT/'nbs'/f'{name}.ipynb', 4)
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs = []
        if 'parameters' in cell.metadata.get('tags', []): cell.source = re.sub('^folds = [0-9]+', 'folds = 0', re.sub("^out = ''", f'out = {str(run)!r}', cell.source, flags=re.M), flags=re.M)
    nbformat.write(nb, folder/f'{name}.ipynb')
    return [cell.source for cell in nb.cells]


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on loopback, with a token, settings of its own and the kernel that `ser-nb kernel` registers"
    if not CHROMIUM: pytest.skip('Chromium is not installed (Debian: apt-get install chromium)')
    sync_api = pytest.importorskip('playwright.sync_api', reason='the package playwright is missing')
    tmp, token, port = tmp_path_factory.mktemp('lab'), secrets.token_hex(16), free_port()
    (tmp/'nbs').mkdir()
    shown = tmp/'settings'/'@jupyterlab'/'notebook-extension' # all cells in the page, also those below its end
    shown.mkdir(parents=True)
    (shown/'tracker.jupyterlab-settings').write_text(json.dumps(dict(windowingMode='none')))
    env = os.environ | {k: str(tmp/v) for k, v in dict(HOME='home', JUPYTER_DATA_DIR='data', JUPYTER_CONFIG_DIR='config', JUPYTER_RUNTIME_DIR='runtime', IPYTHONDIR='ipython',
                                                       JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='workspaces').items()}
    assert ser_nb('kernel', env=env).returncode == 0
    with open(tmp/'log', 'wb') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={token}',
                                   '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', f'--ServerApp.root_dir={tmp/"nbs"}'], env=env, stdout=log, stderr=log)
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport=dict(width=1280, height=900))
        for _ in range(240):
            assert server.poll() is None, (tmp/'log').read_text()
            try: socket.create_connection(('127.0.0.1', port), 1).close(); break
            except OSError: time.sleep(.5)
        def opened(name):
            sources = notebook_to_try(name, tmp/'nbs', tmp/'run')
            page.goto(f'http://127.0.0.1:{port}/lab/tree/{name}.ipynb?token={token}', timeout=120000)
            page.locator('.jp-Notebook .jp-CodeCell').first.wait_for(timeout=120000)
            return page, sources
        yield opened, tmp
        chromium.close()
    server.terminate()
    server.wait(60)


def pick_kernel(page, name):
    "As a user does: the kernel's name at the right of the toolbar, then the list"
    page.locator('.jp-NotebookPanel .jp-KernelName, .jp-NotebookPanel .jp-Toolbar-kernelName').first.click(timeout=60000)
    dialog = page.locator('.jp-Dialog')
    dialog.wait_for(timeout=60000)
    dialog.locator('select').select_option(label=name)
    dialog.locator('.jp-mod-accept').click()
    page.locator('.jp-NotebookPanel .jp-Toolbar', has_text=name).first.wait_for(timeout=120000)


def run_all(page):
    "Run > Run All Cells, until the last cell has its number"
    page.locator('.lm-MenuBar-itemLabel', has_text='Run').first.click()
    page.get_by_role('menuitem', name='Run All Cells').first.click()
    for _ in range(MINUTES * 60):
        errors = page.locator('.jp-OutputArea-output', has_text='Traceback (most recent call last)')
        assert not errors.count(), errors.first.inner_text()
        if any(c.isdigit() for c in page.locator('.jp-CodeCell .jp-InputPrompt').last.inner_text()): return
        page.wait_for_timeout(1000)
    raise AssertionError(f'not done after {MINUTES} minutes: ' + ' '.join(page.locator('.jp-CodeCell .jp-InputPrompt').all_inner_texts()))


def test_all_cells_of_proposed_system_run_in_the_lab_and_show_the_confusion_matrix(lab):
    opened, tmp = lab
    page, sources = opened('Proposed_System')
    pick_kernel(page, 'Python (ser_nb)')
    run_all(page)
    place = next(i for i, source in enumerate(sources) if 'plot_confusion(test.label, heard' in source)
    picture = page.locator('.jp-Notebook .jp-Cell').nth(place).locator('.jp-RenderedImage img')
    picture.scroll_into_view_if_needed()
    page.screenshot(path=tmp/'lab.png')
    assert picture.evaluate('i => i.naturalWidth') > 400
    assert (tmp/'run'/'model.h5').is_file() and (tmp/'run'/'figures'/'confusion.png').is_file()
