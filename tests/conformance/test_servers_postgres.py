"""A database in a box, by the command that everybody types: Debian's PostgreSQL, asked by Debian's client outside."""

from __future__ import annotations

import subprocess
import time

import pytest

from neighbours import HOST

START = (
    "cd /tmp && exec setpriv --reuid postgres --regid postgres --init-groups /usr/lib/postgresql/15/bin/postgres"
    " -D /var/lib/postgresql/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf -c 'listen_addresses=*'"
    " -c hba_file=/run/hba.conf"
)
SCRIPT = f"install -d -o postgres /run/postgresql; echo 'host all all all trust' >/run/hba.conf; {START}"


def psql(address, statement):
    """What the client says to one statement."""
    return subprocess.run(
        ["psql", "-h", address, "-U", "postgres", "-At", "-c", statement],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "PGCONNECT_TIMEOUT": "2"},
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", HOST[4]])
def test_postgres_answers_within_five_seconds(tarbox, neighbour, debian_servers, address):
    """Its own start, recovery and all, is most of that."""
    begin = time.monotonic()
    process = tarbox.start("run", "--rm", "-p", "5432:5432", debian_servers, "sh", "-c", SCRIPT)
    try:
        while (done := psql(address, "select 6 * 7")).returncode:
            assert time.monotonic() - begin < 5, done.stderr
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        assert done.stdout == "42\n"
        assert time.monotonic() - begin < 5
        rows = "create table t as select generate_series(1, 100000) as n; select sum(n), count(*) from t"
        assert psql(address, rows).stdout.splitlines()[-1] == "5000050000|100000"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
