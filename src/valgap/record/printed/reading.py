"""One printed line: which label belongs to which number, by what stands next to what."""

from __future__ import annotations

from valgap.record.printed.found import Found, Line
from valgap.record.printed.tokens import Token, tokens_of
from valgap.record.printed.words import COUNTED, INDEXED, MODEL, TEST, TRAIN, VAL, Meaning, meaning_of, parts_of

SEPARATORS = {",", ";", "|"}
WRAPPERS = {"tensor", "float", "float32", "float64", "np.float32", "np.float64", "array", "round"}
EPOCH = {"epoch", "epochs", "ep"}
RIGHT = {"correct", "right", "correctly"}
SIDES = TRAIN | VAL | TEST | {"set", "split"}
PERCENT_WORDS = {"percent", "pct"}
# After these, figures are of the plain model again.
PLAIN_MODEL = {"student", "online", "raw", "plain", "base", "model"}


def read_line(text: str) -> Line:
    """The numbers of a cleaned line with their labels."""
    return _Reader(tokens_of(text)).read()


class _Reader:
    """Goes over the tokens once, with the words that wait for a number."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.line = Line()
        self.phrase: list[str] = []
        self.phrase_percent = False
        self.names: list[list[str]] = []  # labels before commas that wait for as many numbers
        self.side = ""
        self.model = ""  # the other model that the line speaks of
        self.spoken: set[tuple[str, int]] = set()  # metrics said of that model
        self.context: list[tuple[list[str], str]] = []  # keys of the dictionaries around, and the side before each
        self.inherit: Found | None = None  # the number that the open parenthesis belongs to
        self.last: Found | None = None
        self.at = 0

    def read(self) -> Line:
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "word":
                self._word(token)
            elif token.kind == "number":
                self._number(token)
            elif token.kind == "mark":
                self._mark(token)
            else:
                self._conclude()
                self.last = None
            self.at += 1
        self.line.words = tuple(self.phrase)
        self.line.heads = bool(self.tokens) and self.tokens[-1].text in (":", "{")
        self._bare_beside_prefixed()
        self._shared_percent()
        return self.line

    def _peek(self, ahead: int = 1) -> Token | None:
        place = self.at + ahead
        return self.tokens[place] if 0 <= place < len(self.tokens) else None

    def _text(self, ahead: int = 1) -> str:
        token = self._peek(ahead)
        return token.text if token is not None else ""

    # -- words and marks ----------------------------------------------------------------------

    def _word(self, token: Token) -> None:
        if self._text() == "(" and token.text in WRAPPERS:
            return
        if token.text.lower() in PERCENT_WORDS and self.last is not None and not self.phrase:
            self.last.percent = True
            return
        self.phrase.append(token.text)
        # "Acc @ 1", "top 5": the k belongs to the word.
        k, between = self._peek(), self._text() == "@"
        if between:
            k = self._peek(2)
        if k is not None and k.integer and (between or token.text.lower() == "top"):
            self.phrase[-1] += f"@{k.text}"
            self.at += 2 if between else 1

    def _mark(self, token: Token) -> None:
        text = token.text
        if text == "%":
            if self.last is not None and not self.phrase:
                self.last.percent = True
            else:
                self.phrase_percent = True
        elif text == "{":
            self.context.append((self.phrase, self.side))
            self.phrase = []
        elif text == "}" and self.context:
            self._conclude()
            _, self.side = self.context.pop()
        elif text in ("[", "(") and self._is_list():
            pass  # "[0.5, 0.6]": a history, or a figure of each class
        elif text == "(":
            self._parenthesis()
        elif text == ")":
            self.inherit = None
            if self._closing_of_numbers():
                self._conclude()
        elif text in SEPARATORS or (text == "-" and token.gap and self._gap_after()):
            self._separator(text)

    def _is_list(self) -> bool:
        """Go over a list of several numbers, if one begins here; the words before it go on."""
        inside = []
        for token in self.tokens[self.at + 1 :]:
            if token.kind != "number" and token.text != ",":
                break
            inside.append(token)
        numbers = [t for t in inside if t.kind == "number"]
        if len(numbers) < 2 or len(inside) < 2 * len(numbers) - 1:
            return False
        self.line.numbers += [Found(t) for t in numbers]
        self.at += len(inside)
        self.last = None
        return True

    def _parenthesis(self) -> None:
        inside = []
        for token in self.tokens[self.at + 1 :]:
            if token.text == ")":
                break
            inside.append(token)
        if self.last is not None and not self.phrase:
            if inside and all(t.kind == "word" for t in inside):
                self._say_of_last([t.text for t in inside])
                self.at += len(inside)
            else:
                self.inherit = self.last

    def _say_of_last(self, words: list[str]) -> None:
        said = meaning_of(words)
        assert self.last is not None
        if said.metric in ("", self.last.metric):
            self.last.kind = said.kind or self.last.kind
            self.last.side = said.side or self.last.side

    def _closing_of_numbers(self) -> bool:
        """Whether the parenthesis that closes here held a number (else its words belong to the label around it)."""
        for token in reversed(self.tokens[: self.at]):
            if token.text == "(":
                return False
            if token.kind == "number":
                return True
        return False

    def _gap_after(self) -> bool:
        after = self._peek()
        return after is None or after.gap > 0

    def _separator(self, text: str) -> None:
        after = self._peek()
        if text == "|" and self.phrase and after is not None and after.kind == "number":
            return  # a cell of a name, a cell of its number
        if text == "," and self.phrase and meaning_of(self.phrase).metric and (after is not None and after.kind == "word"):
            self.names.append(self.phrase)
            self._conclude(keep_names=True)
            return
        self._conclude()

    def _conclude(self, keep_names: bool = False) -> None:
        """The words that waited are over: whose images and which model they spoke of goes on."""
        said = meaning_of(self.phrase)
        self.side = said.side or self.side
        self._follow_model(said, self.phrase)
        self.phrase, self.phrase_percent = [], False
        if not keep_names:
            self.names = []

    def _follow_model(self, said: Meaning, words: list[str]) -> None:
        parts = {p for w in words for p in parts_of(w)}
        if parts & MODEL:
            self.model, self.spoken = "model", set()
        elif parts & PLAIN_MODEL or (said.metric and (said.metric, said.k) in self.spoken):
            self.model = ""

    # -- numbers ------------------------------------------------------------------------------

    def _number(self, token: Token) -> None:
        if self._fraction(token):
            return
        if token.integer and self._is_index():
            self._index(token)
            return
        found = Found(token)
        self.line.numbers.append(found)
        if self._is_counted(token):
            return
        before = self._text(-1)
        if before == "±" or (before == "-" and self._text(-2) == "/") or self._is_bar_percent():
            self._after(found)
            return
        if self.inherit is not None:
            self._in_parenthesis(found)
        else:
            self._label(found, self.phrase)
        after = self._peek()
        if after is not None and after.kind == "number" and not (after.integer or token.integer):
            found.metric = "other"  # several figures under one name
        self._after(found)

    def _pass_by(self, found: Found) -> None:
        """A number that is no figure of the model: the words before it may still say whose."""
        self._follow_model(Meaning(), self.phrase)
        self._after(found)

    def _after(self, found: Found) -> None:
        self.side = meaning_of(self.phrase).side or self.side
        self.phrase, self.phrase_percent = [], False
        self.last = found

    def _label(self, found: Found, words: list[str]) -> None:
        if self.names:
            names = [*self.names, words] if words else self.names
            words = names[0]
            self.names = names[1:]
        said = meaning_of(words)
        if self.last is not None and words and {w.lower() for w in words} <= {"to", "now"}:
            words = list(self.last.words)  # "improved from 0.5 to 0.6"
            said = Meaning(self.last.metric, self.last.k, self.last.side, self.last.kind)
        if not said.metric and self.context:
            around = [w for phrase, _ in self.context for w in phrase]
            said = meaning_of([*around, *words])
            words = [*around, *words]
        if not said.metric:
            right = self._words_after()
            after = meaning_of([*words, *right])
            if after.metric or (self._percent_follows() and {w.lower() for w in [*words, *right]} & RIGHT):
                said, words = after, [*words, *right]
                said = said if said.metric else Meaning("accuracy", 1, said.side, said.kind)
            elif (
                said.side
                and not (right or found.token.integer)
                and self._percent_follows()
                and all(p in SIDES for w in words for p in parts_of(w))
            ):
                said = Meaning("accuracy", 1, said.side)  # "val 45.2%": what else of validation is a share
        self._fill(found, said, words)

    def _fill(self, found: Found, said: Meaning, words: list[str]) -> None:
        self._follow_model(said, words)
        around = next((s for phrase, _ in reversed(self.context) if (s := meaning_of(phrase).side)), "")
        found.words = tuple(words)
        found.labelled = bool(words)
        found.metric, found.k = said.metric or "other", said.k
        found.own_side = bool(said.side)
        found.side = said.side or around or self.side
        found.kind = self.model or said.kind
        found.percent = self.phrase_percent
        if said.metric in ("accuracy", "top_k") and self._is_no_share(found, words):
            found.metric = "other"
        if self.model:
            self.spoken.add((said.metric, said.k))

    def _is_no_share(self, found: Found, words: list[str]) -> bool:
        """Whether it is too large for a share, or a count of right answers."""
        counts = {p for w in words for p in parts_of(w)} & RIGHT and found.token.integer and not self._percent_follows()
        return bool(counts) or found.value < 0 or (found.value > 100 and not self._percent_follows())

    def _in_parenthesis(self, found: Found) -> None:
        first = self.inherit
        assert first is not None
        said = meaning_of(self.phrase)
        if self.phrase and said.metric not in ("", first.metric):
            self._label(found, self.phrase)
            return
        found.words, found.metric, found.k = (*first.words, *self.phrase), first.metric, first.k
        found.labelled, found.own_side = first.labelled, first.own_side or bool(said.side)
        found.side = said.side or first.side
        if found.metric == "other":
            return
        if self.phrase:
            found.kind = said.kind or first.kind
            if not (said.kind or said.side or said.metric):
                found.metric = "other"  # "(n=48)"
            return
        share = first.metric in ("accuracy", "top_k") and first.kind != "count"
        if share and any(abs(first.value + found.value - whole) < 0.011 for whole in (1, 100)):
            found.metric = "other"  # "76.1 (23.9)": accuracy and error
            return
        if first.kind == "count":
            found.kind = ""
        elif first.kind in ("", "average"):
            first.kind, found.kind = "running", "average"
        else:
            found.kind = first.kind

    def _fraction(self, token: Token) -> bool:
        """ "34/48", "34 of 48": a progress, or so many right answers of so many."""
        middle, whole = self._text(), self._peek(2)
        if not (token.integer and middle in ("/", "of") and whole is not None and whole.integer):
            return False
        first, second = Found(token), Found(whole)
        self.line.numbers += [first, second]
        if self._is_index():
            if self._index_word() in EPOCH:
                self.line.epoch = first.value
            self.at += 2
            self._pass_by(second)
            self.last = None
            return True
        self.at += 2
        said = meaning_of(self.phrase)
        right = {w.lower() for w in [*self.phrase, *self._words_after()]} & (RIGHT | {"got"})
        if self.inherit is not None or said.metric == "accuracy" or right:
            second.kind = "count"
            second.words, second.labelled = tuple(self.phrase), True
            second.side = said.side or self.side
            if self.inherit is None:
                # What is in parentheses behind it, or named next, is the same as a share.
                second.metric = "accuracy"
                ahead = self._words_after()
                keep = list(self.phrase) if said.metric else []
                kind = said.kind
                self._after(second)
                self.at += len(ahead) if self._text(1 + len(ahead)) == "(" else 0
                second.words, second.kind = tuple(keep or ["correct"]), "class" if kind == "class" else "count"
            return True
        self.line.finished = first.value >= second.value - 1
        self._pass_by(second)
        return True

    def _index_word(self) -> str:
        """The word right before the number (or before a bracket, a colon or an equals sign), lower case."""
        ahead = -1
        while self._text(ahead) in ("[", "(", ":", "=", "#", "'", '"'):
            ahead -= 1
        token = self._peek(ahead)
        return token.text.lower() if token is not None and token.kind == "word" and self.phrase else ""

    def _is_index(self) -> bool:
        word = self._index_word()
        return word in INDEXED or (parts_of(word)[-1:] or ("",))[0] in EPOCH

    def _index(self, token: Token) -> None:
        found = Found(token, words=tuple(self.phrase), labelled=True)
        self.line.numbers.append(found)
        word = self._index_word()
        if (parts_of(word)[-1:] or ("",))[0] in EPOCH:
            self.line.epoch = found.value
        if word in ("class", "label"):
            return  # "class 3 accuracy 0.5": the word goes on
        self._pass_by(found)
        self.last = None

    def _is_counted(self, token: Token) -> bool:
        """Whether the number counts things or seconds: the words go on behind it."""
        after = self._words_after()
        if not token.integer:
            return bool(after) and after[0] in ("s", "ms", "sec", "secs", "seconds", "min", "minutes", "h", "GB", "MB")
        return any(w.lower() in COUNTED for w in after[:3])

    def _is_bar_percent(self) -> bool:
        """ "40%|####": how far a bar has come."""
        after = self._peek(2) if self._text() == "%" else self._peek()
        return after is not None and after.kind == "bar"

    def _percent_follows(self) -> bool:
        return self._text() == "%"

    def _words_after(self) -> list[str]:
        """The words behind the number, unless they are the label of the next one."""
        words: list[str] = []
        for place, token in enumerate(self.tokens[self.at + 1 :], self.at + 1):
            if token.integer and (after := self.tokens[place + 1 : place + 2]) and after[0].text.lower() in COUNTED:
                break  # "accuracy after 3 epochs": what is counted there takes no label
            if token.kind == "word":
                words.append(token.text)
            elif token.text == "%" and not words:
                continue
            elif token.text in (":", "=") or token.kind == "number":
                # "10000 test images: 81": the words before the colon are no label of what stands before them,
                # unless they are what it counts.
                counted = [i for i, w in enumerate(words) if w.lower() in COUNTED]
                return words[: counted[0] + 1] if counted else []
            else:
                break
        return words

    # -- the line as a whole ------------------------------------------------------------------

    def _bare_beside_prefixed(self) -> None:
        """ "accuracy: 0.9 - val_accuracy: 0.8": the metric without a prefix is of training; so beside "ema val acc"."""
        for one in self.line.numbers:
            if one.own_side or one.metric == "other":
                continue
            for other in self.line.numbers:
                same = (other.metric, other.k) == (one.metric, one.k) and other.kind in (one.kind, "model")
                if same and other.own_side and other.side in ("val", "test") and one.side in ("", other.side):
                    one.side = "train"

    def _shared_percent(self) -> None:
        """Accuracies of one line are in one unit: one above 1 makes all of them percent."""
        family = [n for n in self.line.numbers if n.metric in ("accuracy", "top_k") and n.kind != "count"]
        if any(n.value > 1 and not n.percent for n in family):
            for number in family:
                number.percent = True
