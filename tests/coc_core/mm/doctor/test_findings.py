"""One line for each thing, whatever happens to the look at it, and nothing of the person in it."""

import getpass
import json

import pytest

from coc_core.mm.doctor.findings import OK, WRONG, Finding, Probe, findings, report


def broken():
    print('a package that talks when it is imported')
    yield Finding('first', 'fine')
    raise OSError(5, 'Input/output\nerror')


def test_a_probe_that_fails_is_a_line_and_the_next_goes_on(capsys):
    found = list(findings([Probe('disk', broken), Probe('last', lambda: [Finding('last', 'fine')])]))
    assert [(f.name, f.state) for f in found] == [('first', OK), ('disk', WRONG), ('last', OK)]
    assert str(found[1]) == 'WRONG  disk               cannot be told: OSError: [Errno 5] Input/output error'
    assert json.loads(report(found))['wrong'] == 1
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('user', ['maria', ''])
def test_home_and_user_are_not_told(monkeypatch, user):
    def name():
        if not user:
            raise KeyError('getpwuid(): uid not found: 1000')
        return user

    monkeypatch.setattr(getpass, 'getuser', name)
    monkeypatch.setenv('HOME', '/home/maria')
    facts = {'paths': ['/home/maria/x', '/home/maria'], 'other': '/home/marianne/x', 'number': 3}
    (found,) = findings([Probe('p', lambda: [Finding('p', 'no /home/maria/a, /scratch/maria/b', OK, facts)])])
    assert found.facts == {'paths': ['~/x', '~'], 'other': '/home/marianne/x', 'number': 3}
    assert found.says == f'no ~/a, /scratch/{"USER" if user else "maria"}/b'
