"""Points for the clients to write, the same in each run."""

import random

START = 1_704_067_200_000_000_000


def points(count, *, with_newlines):
    """Dictionaries with tags, fields of every type and a time; some fields are missing.

    With `time` and every tag known, a point is the row that SQL should show.
    """
    numbers = random.Random(7)
    made = []
    for i in range(count):
        tags = {
            "host": f"host {i % 10}",
            "path,with=all": numbers.choice(["/var/log", "a,b", "c=d", "e f", "caf\u00e9 \u26a1"]),
        }
        if i % 3 == 0:
            tags["rack"] = str(i % 7)
        fields = {
            "load": numbers.choice([0.1, -1.5, 1e-7, 123456.789, 1e300]) * numbers.random(),
            "jobs": numbers.randrange(-(2**63), 2**63),
            "up": numbers.random() < 0.5,
            "note": text(numbers, with_newlines),
        }
        for name in numbers.sample(sorted(fields), numbers.randrange(3)):
            del fields[name]
        made.append({"tags": tags, "fields": fields, "time": START + i * 1_000_000_007})
    return made


def text(numbers, with_newlines):
    letters = ["a", "b", " ", ",", "=", '"', "\\", "#", "\u00e9", "\U0001f980"]
    letters += ["\n"] if with_newlines else []
    # A letter behind, as one of the clients trims.
    return "".join(numbers.choices(letters, k=numbers.randrange(12))) + "x"


def row(point):
    """The row that a point becomes."""
    return {"time": point["time"], **point["tags"], **point["fields"]}
