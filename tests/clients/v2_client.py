"""The Python client of InfluxDB 2, package `influxdb-client`."""

import unittest

from influxdb_client import InfluxDBClient, Point, WriteOptions, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from highwater import ServerTestCase
from points import points, row


class V2Client(ServerTestCase):
    def client(self, **options):
        client = InfluxDBClient(url=self.server.address, token="any", org="any", **options)
        self.addCleanup(client.close)
        return client

    def test_points_come_back_as_written(self):
        made = points(5000, with_newlines=True)
        with self.client().write_api(write_options=SYNCHRONOUS) as api:
            for first in range(0, len(made), 1000):
                batch = [as_point(point) for point in made[first : first + 1000]]
                api.write(bucket="points", record=batch)
        self.assert_rows("points", "all kinds", [row(point) for point in made])

    def test_the_batching_api_loses_nothing(self):
        made = points(5000, with_newlines=True)
        errors = []
        options = WriteOptions(batch_size=700, flush_interval=1000)
        callback = lambda _conf, _data, error: errors.append(error)  # noqa: E731
        with self.client().write_api(write_options=options, error_callback=callback) as api:
            for point in made:
                api.write(bucket="batched", record=as_point(point))
        self.assertEqual(errors, [])
        self.assert_rows("batched", "all kinds", [row(point) for point in made])

    def test_gzip(self):
        made = points(300, with_newlines=True)
        with self.client(enable_gzip=True).write_api(write_options=SYNCHRONOUS) as api:
            api.write(bucket="zipped", record=[as_point(point) for point in made])
        self.assert_rows("zipped", "all kinds", [row(point) for point in made])

    def test_precisions(self):
        scales = {
            WritePrecision.NS: 1,
            WritePrecision.US: 10**3,
            WritePrecision.MS: 10**6,
            WritePrecision.S: 10**9,
        }
        with self.client().write_api(write_options=SYNCHRONOUS) as api:
            for precision in scales:
                line = f"m_{precision} f=1i 400000"
                api.write(bucket="precisions", record=line, write_precision=precision)
        for precision, scale in scales.items():
            self.assert_rows("precisions", f"m_{precision}", [{"time": 400_000 * scale, "f": 1}])

    def test_unsigned_integers(self):
        with self.client().write_api(write_options=SYNCHRONOUS) as api:
            api.write(bucket="unsigned", record="m f=18446744073709551615u 1")
        self.assert_rows("unsigned", "m", [{"time": 1, "f": 2**64 - 1}])

    def test_a_bad_line_is_reported_and_its_neighbours_stay(self):
        with self.client().write_api(write_options=SYNCHRONOUS) as api:
            with self.assertRaises(ApiException) as refused:
                api.write(bucket="partial", record="m f=1 1\nm f=\nm f=3 3")
        self.assertEqual(refused.exception.status, 400)
        self.assertIn("field f has no value", refused.exception.body)
        self.assert_rows("partial", "m", [{"time": 1, "f": 1.0}, {"time": 3, "f": 3.0}])

    def test_ping(self):
        self.assertTrue(self.client().ping())


def as_point(point):
    made = Point("all kinds").time(point["time"], WritePrecision.NS)
    for name, value in point["tags"].items():
        made.tag(name, value)
    for name, value in point["fields"].items():
        made.field(name, value)
    return made


if __name__ == "__main__":
    unittest.main()
