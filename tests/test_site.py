"""The site and the files that GitHub reads: links, the reference's completeness, workflows."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('docker/*.md')) if p.is_file()]
PACKAGES = ('coc_core', 'mmpretrain_plugin', 'mmdet_plugin', 'mmseg_plugin', 'pointcloud')
# Fused code is to be read as files.
UNLISTED = ('coc_core.ops.cpu.', 'coc_core.ops.triton.')


def anchors(page):
    """The names of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        path, _, anchor = link.partition('#')
        if '://' in link or link.startswith('mailto:'):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_reference_has_every_module():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob('*.py')]
    modules = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__') for path in files}
    listed = [m for page in ROOT.glob('docs/api/*.md') for m in re.findall(r'automodule:: (\S+)', page.read_text())]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name in modules if not name.startswith(UNLISTED)}


def test_pages_are_in_the_table_of_contents():
    listed = re.findall(r'^(?:api/)?[\w-]+$', (ROOT / 'docs' / 'index.md').read_text(), re.MULTILINE)
    assert {f'{name}.md' for name in listed if '/' not in name} == {p.name for p in ROOT.glob('docs/*.md')} - {
        'index.md'
    }


@pytest.mark.parametrize('path', sorted(ROOT.glob('.github/**/*.yml')), ids=lambda path: path.name)
def test_what_github_reads_is_yaml(path):
    content = yaml.safe_load(path.read_text())
    if path.parent.name != 'workflows':
        return
    # YAML 1.1 reads the key `on` as True.
    assert content['name'] and content[True] and content['permissions'] == {'contents': 'read'}
    for job in content['jobs'].values():
        assert job['timeout-minutes'] and all('uses' in step or 'run' in step for step in job['steps'])
