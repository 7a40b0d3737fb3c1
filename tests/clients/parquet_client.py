"""Segments as any other program sees them: Parquet, read with `pyarrow`."""

import glob
import os
import unittest
import urllib.request

import pyarrow
import pyarrow.parquet

from highwater import ServerTestCase
from points import START

DAY = 86_400_000_000_000


class Segments(ServerTestCase):
    def post(self, path, body=""):
        request = urllib.request.Request(self.server.address + path, body.encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            self.assertLess(answer.status, 300)

    def segments(self, database, measurement):
        folder = os.path.join(self.server.folder, "data", "segments", database, measurement)
        return sorted(glob.glob(os.path.join(folder, "*", "*.parquet")))

    def test_schema_and_rows(self):
        lines, expected = [], []
        for i in range(4000):
            host, time = f"host {i % 7}", START + i * DAY // 2000
            row = {"time": time, "host": host, "load": i / 8, "jobs": -i, "up": i % 2 == 0}
            tags, rack = "host=host\\ " + str(i % 7), None
            if i % 3 == 0:
                rack = f"r{i % 5}"
                tags += f",rack={rack}"
            note = f"note, {i}"
            fields = f'load={i / 8},jobs={-i}i,up={str(i % 2 == 0).lower()},size={i}u,note="{note}"'
            lines.append(f"cpu,{tags} {fields} {time}")
            expected.append({**row, "rack": rack, "size": i, "note": note})
        self.post("/api/v3/write_lp?db=parquet", "\n".join(lines))
        self.post("/api/v1/flush")
        files = self.segments("parquet", "cpu")
        self.assertEqual(len(files), 1, "days with few points share one")
        found = []
        for file in files:
            table = pyarrow.parquet.read_table(file)
            types = {field.name: field.type for field in table.schema}
            self.assertEqual(types["time"], pyarrow.timestamp("ns"))
            self.assertEqual(types["host"].value_type, pyarrow.string())
            self.assertEqual(types["load"], pyarrow.float64())
            self.assertEqual(types["jobs"], pyarrow.int64())
            self.assertEqual(types["size"], pyarrow.uint64())
            self.assertEqual(types["up"], pyarrow.bool_())
            self.assertEqual(types["note"], pyarrow.string())
            table = table.set_column(0, "time", table["time"].cast(pyarrow.int64()))
            rows = table.to_pylist()
            keys = [(row["host"], row["rack"] or "", row["time"]) for row in rows]
            self.assertEqual(keys, sorted(keys), "sorted by tags and time")
            found += rows
        order = lambda row: row["time"]  # noqa: E731
        self.assertEqual(sorted(found, key=order), expected)


if __name__ == "__main__":
    unittest.main()
