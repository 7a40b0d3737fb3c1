"""A Highwater process for one test class, and rows read back from it through SQL."""

import datetime
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request


class Server:
    """`highwater serve` on a folder of its own; the binary is named by $HIGHWATER."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="highwater-clients-")
        self.process = subprocess.Popen(
            [
                os.environ["HIGHWATER"],
                "serve",
                *("--http", "127.0.0.1:0", "--postgres", "off"),
                *("--data", os.path.join(self.folder, "data")),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = None
        for line in self.process.stdout:
            if line.startswith("http listening on "):
                self.address = line.removeprefix("http listening on ").strip()
            if line.strip() == "ready":
                return
        self.close()
        raise RuntimeError("the server ended before it was ready")

    @property
    def host_and_port(self):
        host, port = self.address.removeprefix("http://").split(":")
        return host, int(port)

    def query(self, database, sql):
        """Rows as dictionaries without their NULLs, times with nanoseconds as text."""
        body = json.dumps({"db": database, "q": sql, "format": "json"}).encode()
        request = urllib.request.Request(
            self.address + "/api/v3/query_sql", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                rows = json.load(answer)
        except urllib.error.HTTPError as error:
            message = f"{sql}: {error.code} {error.read().decode()}"
            raise AssertionError(message) from None
        return [{name: v for name, v in row.items() if v is not None} for row in rows]

    def close(self):
        """Stops the server as an operator would and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        shutil.rmtree(self.folder)
        return code


class ServerTestCase(unittest.TestCase):
    """Tests that share one server; each test uses a database of its own."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.close() == 0, "the server did not end well"

    def assert_rows(self, database, measurement, expected):
        """`expected` are dictionaries with `time` in nanoseconds, tags and fields."""
        found = self.server.query(database, f'SELECT * FROM "{measurement}" ORDER BY time')
        expected = sorted(expected, key=lambda row: row["time"])
        expected = [{**row, "time": rfc3339(row["time"])} for row in expected]
        self.assertEqual(len(found), len(expected))
        for own, wanted in zip(found, expected):
            self.assertEqual(own, wanted)
            for name, value in wanted.items():
                self.assertIs(type(own[name]), type(value), name)


def rfc3339(nanos):
    """A time as Highwater prints it: UTC, `Z`, no superfluous fraction."""
    seconds, fraction = divmod(nanos, 1_000_000_000)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + digits + "Z"
