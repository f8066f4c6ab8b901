"The site: nothing a reader follows leads nowhere, and pages can be read on a desk and on a phone"
import functools
import http.server
import posixpath
import re
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from conftest import ROOT, chromium

from ser_nb.docs import without_quarto

pytestmark = pytest.mark.jobs


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The site, rendered by smalldocs"
    out = tmp_path_factory.mktemp('docs')/'site'
    warnings = without_quarto(out)
    assert not warnings, '\n'.join(warnings)
    return out


class Page(HTMLParser):
    "What a page links to, and what can be linked to on it"
    def __init__(self, path):
        super().__init__()
        self.links, self.pictures, self.ids = [], [], set()
        self.text = path.read_text(encoding='utf-8')
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if tag == 'img': self.pictures.append(a.get('src', ''))
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}


def named(pages, name):
    "A page by its notebook's name, in whichever folder it is"
    return next(page for path, page in pages.items() if path.rpartition('/')[2] == f'{name}.html')


@pytest.fixture(scope='module')
def pages(site): return {p.relative_to(site).as_posix(): Page(p) for p in site.rglob('*.html')}


def test_every_notebook_has_a_page_in_the_order_of_the_pipeline(pages):
    entries = yaml.safe_load((ROOT/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents']
    order = [f for e in entries for f in ([e] if isinstance(e, str) else e['contents'])]
    assert set(order) == {
        p.relative_to(ROOT/'nbs').as_posix()
        for p in (ROOT/'nbs').rglob('[!.]*.ipynb')
        if '.ipynb_checkpoints' not in p.parts}
    linked = [unquote(urlsplit(l).path).removeprefix('./') for l in pages['index.html'].links]
    assert ' '.join(f.lower().replace('.ipynb', '.html') for f in order) in ' '.join(linked)


def test_every_link_anchor_and_picture_is_there(site, pages):
    broken = []
    for name, page in pages.items():
        for link in (*page.links, *page.pictures):
            to = urlsplit(link)
            if to.scheme or to.netloc: continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(to.path))) if to.path else name
            anchors = pages[target].ids if to.fragment and target in pages else [unquote(to.fragment)]
            if not (site/target).is_file(): broken.append(f'{name}: {link}')
            elif unquote(to.fragment) not in anchors: broken.append(f'{name}: {link} (no such anchor)')
    assert not broken, '\n'.join(broken)


def test_pictures_of_results_are_on_their_pages(pages):
    for name, least in dict(
        index=2, protocols=1, metrics=3, proposed_system=5, ladder=1, robustness=4, feature_extraction=1
    ).items():
        assert len(named(pages, name).pictures) >= least, name


def test_functions_are_described_with_their_parameters_and_link_to_their_source(pages):
    for name, shown in dict(
        metrics='unweighted', feature_extraction='(n_samples,)', pipeline='click.UsageError'
    ).items():
        page = named(pages, name)
        assert shown in re.sub('<.*?>', '', page.text), name
        assert [l for l in page.links if re.fullmatch(rf'https://github.com/.*/ser_nb/{name}.py#L\d+', l)], name


def test_the_source_of_a_function_is_its_own_module_although_others_have_one_of_that_name(pages):
    for name in ('proposed_system', 'emotion_model'): # both have train_model and fit_predict
        links = [l for l in named(pages, name).links if '/blob/main/ser_nb/' in l]
        assert links and all(re.search(rf'/{name}\.py#L\d+$', l) for l in links), links


def test_a_page_needs_no_other_server(pages):
    fetched = re.compile(r'<(?:script|link)[^>]*(?:src|rel="stylesheet"[^>]* href)="(?:https?:)?//')
    for path, page in pages.items():
        assert not fetched.search(page.text), path
        assert 'class="math' not in page.text, path


# in a browser

@pytest.fixture(scope='module')
def browser(site):
    "Opens a page of the site; what comes from elsewhere (fonts, the script for formulas) is answered with nothing"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f'http://127.0.0.1:{server.server_port}/'
    with chromium() as tabs:
        def opened(name, width):
            page = tabs.new_page(viewport=dict(width=width, height=900))
            page.route(
                lambda url: not url.startswith(here) or url.endswith('favicon.ico'),
                lambda route: route.fulfill(body=''))
            page.errors = []
            page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
            page.on('pageerror', lambda e: page.errors.append(str(e)))
            page.goto(f"{here}{next(site.rglob(f'{name}.html')).relative_to(site).as_posix()}")
            page.wait_for_load_state('networkidle')
            return page
        yield opened
    server.shutdown()


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('name', ['index', 'protocols', 'proposed_system'])
def test_a_page_is_readable_in_a_browser(browser, name, width, tmp_path):
    page = browser(name, width)
    page.screenshot(path=tmp_path/f'{name}_{width}.png', full_page=True)
    assert not page.errors
    assert page.evaluate('document.documentElement.scrollWidth') <= width, f'scrolls sideways: {name} at {width} px'
    pictures = page.locator('main img')
    assert pictures.count()
    for i in range(pictures.count()):
        pictures.nth(i).scroll_into_view_if_needed()
        assert pictures.nth(i).evaluate(
            'i => i.decode().then(() => i.naturalWidth > 100 && i.clientWidth > 100)'
        ), f'picture {i} of {name}'
    text = page.locator('main p').first
    assert float(text.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) >= 15
    page.close()


def test_search_finds_a_page(browser):
    page = browser('index', 1280)
    page.locator('input[type=search], .aa-Input, input[placeholder=Search]').first.fill('calibration')
    page.get_by_text('Metrics').nth(1).wait_for(timeout=20000)
    page.close()
