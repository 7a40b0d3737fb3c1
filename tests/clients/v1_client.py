"""The Python client of InfluxDB 1, package `influxdb`."""

import unittest

from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

from highwater import ServerTestCase
from points import points, row


class V1Client(ServerTestCase):
    def client(self, database, **options):
        host, port = self.server.host_and_port
        client = InfluxDBClient(host=host, port=port, database=database, **options)
        self.addCleanup(client.close)
        return client

    def test_batches_come_back_as_written(self):
        # This client turns newlines in strings into a backslash and an n.
        made = points(5000, with_newlines=False)
        body = [{"measurement": "all kinds", **point} for point in made]
        client = self.client("batches")
        self.assertTrue(client.write_points(body, time_precision="n", batch_size=1000))
        self.assert_rows("batches", "all kinds", [row(point) for point in made])

    def test_gzip(self):
        made = points(300, with_newlines=False)
        body = [{"measurement": "m", **point} for point in made]
        self.assertTrue(self.client("zipped", gzip=True).write_points(body, time_precision="n"))
        self.assert_rows("zipped", "m", [row(point) for point in made])

    def test_precisions(self):
        client = self.client("precisions")
        units = {"n": 1, "u": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
        for unit in units:
            client.write_points([f"m_{unit} f=1i 400000"], time_precision=unit, protocol="line")
        for unit, nanos in units.items():
            self.assert_rows("precisions", f"m_{unit}", [{"time": 400_000 * nanos, "f": 1}])

    def test_a_bad_point_is_reported_and_its_neighbours_stay(self):
        client = self.client("partial")
        client.write_points(["m f=1 1"], protocol="line", time_precision="n")
        with self.assertRaises(InfluxDBClientError) as refused:
            lines = ["m f=2 2", 'm f="text" 3', "m f=4 4"]
            client.write_points(lines, protocol="line", time_precision="n")
        self.assertEqual(refused.exception.code, 400)
        self.assertIn("field f of m is float, not string", refused.exception.content)
        self.assert_rows("partial", "m", [{"time": t, "f": float(t)} for t in (1, 2, 4)])

    def test_writing_again_changes_nothing(self):
        client = self.client("again")
        made = points(100, with_newlines=False)
        for _ in range(3):
            client.write_points([{"measurement": "m", **p} for p in made], time_precision="n")
        self.assert_rows("again", "m", [row(point) for point in made])

    def test_databases_and_measurements_are_listed(self):
        client = self.client("listed")
        client.create_database("listed")
        client.write_points(["b f=1 1", "a f=1 1"], protocol="line", time_precision="n")
        self.assertIn({"name": "listed"}, client.get_list_database())
        self.assertEqual(client.get_list_measurements(), [{"name": "a"}, {"name": "b"}])
        self.assertTrue(client.get_list_retention_policies("listed"))

    def test_ping_tells_a_version(self):
        self.assertTrue(self.client("any").ping())


if __name__ == "__main__":
    unittest.main()
