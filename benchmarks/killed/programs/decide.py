"""Makes decisions as the review page does, and confirms each when it has been made."""

from pathlib import Path

from valgap.review.decisions import Decision, Decisions

decisions = Decisions(Path("r") / "decisions.csv")
with Path("confirmed").open("a") as confirmed:
    for number in range(400):
        names = [f'image {number}-{i}\n, "{i}".jpg' for i in range(1 + number % 5)]
        decisions.make(*(Decision(name, "relabel", "ant", "train", "bee", "DAT104") for name in names))
        confirmed.write(f"{number}\n")
        confirmed.flush()
