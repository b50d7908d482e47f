"""Analyses the text of a call: words that carry meaning, boilerplate, and names.

Everything here is deterministic and uses only one firm, so that a firm's topics never depend on its batch.
"""

import re
from collections import Counter
from collections.abc import Iterable

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from worker.firm import Firm, Sentence
from worker.firm_names import LEGAL_FORMS
from worker.vocabulary import stem, weight_of
from worker.words import all_words, plain_words

_FIGURE = re.compile(r"\d")

# Stop words of scikit-learn that have a meaning in a call about finances.
_MEANINGFUL = {"amount", "bill", "bottom", "detail", "fire", "interest", "mill", "system", "thick", "thin", "top"}

_CALL_WORDS = set(
    """
    able absolutely actually additional additionally afternoon ago ahead analyst analysts answer appreciate
    approximately aren ask asked away basically believe better big billion bit bring bringing came certain certainly
    clear clearly color come comes coming comment commented comments company conference consider considered continue
    continued continues continuing couldn couple course currently data day days definitely did didn different
    directly does doesn doing don end ended ending especially essentially evening exactly example executive expect
    expected expecting expects extent fact fair fairly far feel feeling feels felt final finally fiscal folks follow
    following forth forward frankly generally gentlemen gets getting given gives giving glad goes going good got
    great guess guy guys half happen happened happens happy hard hear heard hello help hey high higher hold honestly
    hope hopefully idea important include included includes including individual instance isn issue issues item
    items just kind know knows ladies large largely larger later let lets level levels like likely line little long
    longer look looked looking looks lot lots low lower main mainly make makes making matter maybe mean means
    mention mentioned million moment moments month months morning mostly near nearly necessarily need needed needs
    new nice notable note noted number numbers obviously okay old open operator opportunities opportunity original
    overall partially particular particularly past people percent period perspective picture piece pieces place
    pleased plus point points possible potential potentially presentation president pretty previous previously
    primarily prior probably provide provided provides providing quarter quarterly quarters question questions quick
    quickly quite range real really reason reasons recall recent recently reference regard regarding related
    relative relatively remain remains remember report reported reporting result results right roughly said saw say
    saying says second seeing seen sense set shown significant significantly similar simply sir slide slides
    slightly small smaller sort speak specific specifically spoke standpoint start started starting step strong
    stuff subject sure taken takes taking talk talked talking talks tell tend term terms thank thanks thing things
    think thinking thought time times today told tonight took total try trying turn turning type types typically
    understand unk use used uses using usual usually various versus view want wanted wants wasn way ways website
    week weeks welcome went whatsoever won word words work worked working world worth wouldn yeah year years yes
    yesterday yet
    january february march april june july august september october november december
    """.split()  # noqa: SIM905
)

# Contractions in transcripts that lost their apostrophes.
_CONTRACTIONS = set(
    """
    aint arent cant cause cos couldnt couldve cuz didnt doesnt dont gimme gonna gotta hadnt hasnt havent heres hes
    hows ill isnt itd itll its ive kinda lemme lets lotta mustve shes shouldnt shouldve sorta thatd thatll thats thered
    therell theres theyd theyll theyre theyve wanna wasnt werent weve whats whens wheres whos wont wouldnt wouldve yall
    yeah youd youll youre youve
    """.split()  # noqa: SIM905
)
_ARTEFACT = re.compile(
    r"technical difficult(?:y|ies)|audio (?:gap|difficulty)|\b(?:inaudible|indecipherable|indiscernible|unintelligible"
    r"|crosstalk|cross talk|multiple speakers|phonetic|background noise)\b"
)
_ARTEFACT_CUES = ("technical", "audi", "inde", "indi", "unin", "talk", "speakers", "phonetic", "noise")

STOP_WORDS = (ENGLISH_STOP_WORDS - _MEANINGFUL) | _CALL_WORDS | _CONTRACTIONS
MIN_CONTENT_WORDS = 3


class _Cued:
    """A pattern that is only tried on texts with one of its cues, which is faster than searching every text."""

    def __init__(self, pattern: str, *cues: str) -> None:
        self._pattern = re.compile(pattern)
        self._cues = cues

    def search(self, text: str) -> bool:
        return any(cue in text for cue in self._cues) and bool(self._pattern.search(text))

    def finditer(self, text: str) -> Iterable[re.Match[str]]:
        return self._pattern.finditer(text) if any(cue in text for cue in self._cues) else ()


_OPERATOR = _Cued(
    r"operator instructions|go ahead with your question|your line is (now )?open|(your|our) (next|first|last) question"
    r"|question (comes|is coming|is) from|you may (now )?disconnect|concludes (today|our|the|this)"
    r"|(any|no) (further|more|other|additional) questions|in (the|your) question queue|open (up )?the (call|line|floor)"
    r"|questions? at this time",
    *("operator", "question", "line is", "disconnect", "concludes", "open "),
)
_LEGAL = _Cued(
    r"forward[- ]looking (statement|information|comment)|safe harbou?r|risks? and uncertaint"
    r"|actual (results|events|performance).{0,80}differ|(assume|undertake|have|take)s? no (duty|obligation|responsib)"
    r"|obligation to update|required by (applicable )?law|filed with the (sec|securities)|form (10|8)-?[kq]\b"
    r"|sec filings|non-gaap (financial )?(measure|metric|number)"
    r"|reconciliations?\b.{0,80}(gaap|press release|website|appendix)"
    r"|risk factors|private securities litigation|\b(such|these) statements\b|those statements are"
    r"|guarantees? of future|cautionary statement|statements (contained|included|made) (during|in|on) (the|this|today)",
    *("forward", "safe harb", "uncertaint", "differ", "obligation", "duty", "responsib", "required by", "filed with"),
    *("form 10", "form 8", "sec filings", "gaap", "risk factors", "litigation", "statement", "guarantee"),
)
_REPLAY = _Cued(
    r"\breplay\b|webcast|(being|be) recorded|recording of (this|today)|this call is the property",
    *("replay", "webcast", "recorded", "recording", "property"),
)
_POINTER = re.compile(
    r"(turn|turning|refer|referring|move|moving|go|going|look|looking|start|starting|see|shown|on|to|with) "
    r"(now )?(to |at |on )?(the )?(slides?|pages?)( number)? (\d+|one|two|three)|\b(our|company'?s|the) web ?site"
    r"|investor relations (section|page|portion)|(earnings|press|news) release|posted (on|to)\b|slide presentation"
)
_HAND_OVER = re.compile(
    r"\b(turn|hand|pass|send|toss|throw)(ing)? (it|things|this|that|the (call|conference|floor|discussion|meeting)|you"
    r"|over).{0,40}\b(over|back|to)\b|\bturn to q&a\b|take your questions|for (your )?questions|opening remarks"
    r"|prepared remarks"
)
_COURTESY = re.compile(
    r"(joining|with) (me|us)( here)? (today|on (the|today|this)|this|are|is)|joining me"
    r"|good (morning|afternoon|evening)|\bwelcome (to|everyone|you)"
    r"|thanks?( you)?( all| everyone| again)?,? (for|to) (joining|participat|your (interest|time|question|attention"
    r"|support|continued|participation)|taking|everyone|all|being|listening|the question)"
    r"|\b(congrat|appreciate (your|the) (time|question|interest))|(talk|speak|speaking) (to|with) you"
    r" (again|next|soon)"
    r"|look(ing)? forward to (speaking|talking|updating|seeing|reporting)|follow-?ups?\b|have a (good|great|nice)"
)

_ROLE = r"(chief|president|officer|chairman|c[efo]o|director|treasurer|controller|head of|investor relations)\b"
_INTRODUCTION = _Cued(
    rf"\b(joined|accompanied)\b.{{0,60}} by\b.{{0,120}}\b{_ROLE}|\b{_ROLE}[^;]{{0,80}};.{{0,60}}\b{_ROLE}"
    rf"|\b(with|joining|on|leading|hosting|participating (in|on)) (me|us|the call|today'?s call)\b.{{0,120}}\b{_ROLE}"
    rf"|\b(my name is|this is|speaking today|available to answer)\b.{{0,80}}\b{_ROLE}",
    *("chief", "president", "officer", "chairman", "ceo", "cfo", "coo", "director", "treasurer", "controller"),
    *("head of", "investor relations"),
)
# An announcement of what will be discussed is only a table of contents.
_AGENDA = re.compile(
    r"^(?!as |while |.*\bwhich ).{0,60}[\w>]('ll| will| would like to|'d like to| am going to|'m going to|'re going to)"
    r"( then| now| also| first| next| briefly| just| start (off )?by| begin by)*"
    r" (provid|review|discuss|cover|walk|giv|take|comment|highlight|summari[sz]|updat|talk|go over|begin with|start"
    r" with)\w*\b.{0,60}\b(results|details?|updates?|overview|summary|remarks|comments|color|highlights|financials"
    r"|financial (performance|review)|guidance|outlook|q&a)\b"
)
_AGENDA_CUE = re.compile(
    r"^(<unk>|now|next|today|this (morning|afternoon)|first|then|following that|finally|i'll|i will|with that|after)\b"
    r"|\b(then|now|next|today|this (morning|afternoon)|in a (moment|minute|few (moments|minutes))|shortly|later"
    r"|before (i|we|that)|in (more|greater) detail|on (today'?s|the|this) call)\b"
)

# A sentence that only greets, refers or hands over is short; a longer one has other content as well.
_MAX_POINTER_WORDS = 7


def content_words(sentence: Sentence) -> list[str]:
    """The words of a sentence that carry meaning, in lower case."""
    cleaned = sentence.cleaned_text.lower()
    if any(cue in cleaned for cue in _ARTEFACT_CUES):
        cleaned = _ARTEFACT.sub(" ", cleaned)
    return [word for word in plain_words(cleaned) if word not in STOP_WORDS]


def is_question(sentence: Sentence) -> bool:
    """Whether an analyst says it, or an unknown speaker asks it with a question mark."""
    speaker = sentence.speaker_type.casefold()
    return speaker == "analyst" or (speaker != "executive" and sentence.raw_text.rstrip().endswith("?"))


def weight(term: str) -> float:
    """How specific a term is: 1, or less if all its words are generic, such as "growth" or "business"."""
    return max(weight_of(stem(word)) for word in term.split())


def has_figure(text: str) -> bool:
    return bool(_FIGURE.search(text))


def is_boilerplate(sentence: Sentence, words: int) -> bool:
    """Whether a sentence with `words` content words is boilerplate, as about a fifth of all sentences are."""
    raw = sentence.raw_text.lower()
    if sentence.speaker_type.casefold() == "operator" or _OPERATOR.search(raw):
        return True
    if words < MIN_CONTENT_WORDS and not (words and has_figure(raw)):
        return True
    if _LEGAL.search(raw) or _REPLAY.search(raw) or _INTRODUCTION.search(raw):
        return True
    if _AGENDA.search(raw) and _AGENDA_CUE.search(raw):
        return True
    return words <= _MAX_POINTER_WORDS and any(p.search(raw) for p in (_POINTER, _HAND_OVER, _COURTESY))


# These words precede the name of a person who is greeted, thanked or introduced.
_GREETED = _Cued(
    r"(?:[Tt]hanks?(?: you)?(?: very much| so much| a lot)?|[Gg]ood (?:morning|afternoon|evening)|\b[Hh]i|[Hh]ello"
    r"|\b[Hh]ey|over to|back to|joined by|line of|question (?:comes |is )?from|my name is|\b(?:Mr|Ms|Mrs|Dr)\.?),? "
    r"((?:[A-Z][\w'’-]+\.? ?){1,4})",
    *("hank", "ood morning", "ood afternoon", "ood evening", "Hi", "hi ", "hi,", "ello", "ey ", "ey,", "over to"),
    *("back to", "joined by", "line of", "uestion", "my name is", "Mr", "Ms", "Dr"),
)
_ADDRESSED = re.compile(r", ([A-Z][a-z'’-]+)[.?!]$")
_INTRODUCED = re.compile(
    r"\b((?:[A-Z][\w'’-]+\.? ){1,3}[A-Z][\w'’-]+), (?:our |the )?(?:new )?(?:[A-Z][\w']+ )*"
    r"(?:Chief|President|Chairman|C[EFO]O|Officer|Treasurer|Director|Head of|Investor Relations)\b"
)
_COLLEAGUE = re.compile(
    r"(?:^As |[a-z,.] )([A-Z][a-z'’-]+),? (?:(?:just |already |also )?(?:mentioned|said|alluded|pointed out)|and I)\b"
)
# iPhone, YouTube; or a word with a trade mark.
_MARKED = re.compile(r"\b(?:(\w*[a-z][A-Z]\w*)|(\w+)\s?[®™])")
# A single capitalised word within a sentence that mentions products or acquired firms.
_BRANDED = re.compile(
    r"\b(?:The|Our|[a-z]+,?) ([A-Z][a-z]{2,})(?:['’]s)? (?:acquisition|app|branded|brand|capsule|device|drug"
    r"|franchise|launch|merger|platform|prescription|product|rollout|software|tablet|trial)s?\b"
    r"|\b(?:acquire|acquired|acquiring|acquisition of|approval of|brands?|called|integrating|integration of|introduced"
    r"|introduction of|known as|launch of|launched|launching|merger with|named|rollout of|sales of)"
    r" (?:the |our |new )*([A-Z][a-z]{2,})\b(?! [A-Z])"
)
_NAMES = (_GREETED, _ADDRESSED, _INTRODUCED, _COLLEAGUE, _MARKED, _BRANDED)
# Capitalised words that are not names: terms written like products or tickers, and places.
_TERMS = set(
    """
    adtech agtech ai ar biotech brexit capex ccaas cpaas ctdna devops dod doe doj dot ebitda ecommerce edtech er esports
    ev evs evtol finfet fintech gan genai hr iaas ii iii iiot insurtech iot ip latam lidar mab mabs martech medtech mmhg
    mou mrna nox opex paas pc pcs phd phds poc proptech regtech revpar rnai saas sic sige sirna techops tv tvs ucaas
    uk voip volte vr wifi xaas yoy
    """.split()  # noqa: SIM905
)
_PLACES = set(
    """
    africa african america american americas asia asian atlantic australia australian brazil brazilian britain british
    california canada canadian chicago china chinese colorado england europe european florida france french georgia
    german germany gulf hawaii houston illinois india indian indiana ireland israel italy japan japanese korea korean
    london louisiana mexican mexico michigan midwest minnesota nevada northeast northwest ohio oklahoma ontario oregon
    pacific pennsylvania russia russian singapore southeast southwest spain spanish states taiwan tennessee texas united
    utah virginia washington western york
    """.split()  # noqa: SIM905
)

# Words in the names of many firms and in any call: they count as names only if the call capitalises them.
_TRADE_WORDS = set(
    """
    advertising auto automotive bank banks brands building capital chemical chemicals clean communications community
    consolidated consumer core corporate devices digital education electric energy engineering entertainment financial
    food foods fuel gas general global group health healthcare host income independent industrial industries insurance
    international investors life marketing materials media medical mortgage motor motors national natural network
    networks oil paper parts petroleum pharmaceuticals power products properties public realty resources restaurants
    retail science sciences select semiconductor services software solutions storage stores strategic systems
    technologies technology telecommunications therapeutics tool trust water wholesale works worldwide
    """.split()  # noqa: SIM905
)


def names(firm: Firm) -> frozenset[str]:
    """The words, in lower case, of the names of the firm, of people, products and brands in the call.

    A word that the call also has in lower case is a common word and not a name ("credit" in a broker's name, "gap",
    "airlines"). The firm's whole name is included, its words joined by blanks, as no single word identifies AT&T.
    """
    texts = [sentence.raw_text for sentence in firm.sentences]
    lower = Counter(word for text in texts for word in re.findall(r"\b[a-z]{2,}\b", text))
    capital = Counter(word.lower() for text in texts for word in re.findall(r"\b[A-Z]\w+\b", text))

    called = [word for word in all_words(firm.firm_name) if word not in LEGAL_FORMS]
    plain = [word for word in plain_words(firm.firm_name) if word not in LEGAL_FORMS]
    short = [firm.firm_id.lower(), *plain_words(f"{firm.firm_id} {''.join(word[0] for word in plain)}")]
    said = [word for word in short if capital[word]]
    own = {*called, *plain, *said} - STOP_WORDS | {" ".join(called)}
    own -= {word for word in _TRADE_WORDS if not capital[word]}
    of_the_firm = {word for word in own if len(word) > 1 and not word.isdigit() and lower[word] * 2 <= capital[word]}

    matches = (match for text in texts for pattern in _NAMES for match in pattern.finditer(text))
    found = {word for match in matches for word in plain_words(" ".join(filter(None, match.groups())))}
    of_others = {word for word in found - _PLACES - STOP_WORDS if not lower[word]}
    return frozenset((of_the_firm | of_others) - _TERMS)


def call_words(firm: Firm) -> frozenset[str]:
    """All words of a call and of the firm's name, in lower case."""
    texts = [firm.firm_name, *(sentence.raw_text for sentence in firm.sentences)]
    return frozenset(word for text in texts for word in all_words(text))


def with_one_number(words: list[list[str]]) -> list[list[str]]:
    """The words of each sentence, with singular and plural replaced by the form that is more frequent in the call."""
    said = Counter(word for sentence in words for word in sentence)
    one = {word: word for word in said}
    for plural in said:
        singular = next((form for form in _singulars(plural) if form in said), None)
        if singular and said[plural] > said[singular]:
            one[singular] = plural
        elif singular:
            one[plural] = singular
    return [[one[word] for word in sentence] for sentence in words]


def _singulars(word: str) -> list[str]:
    """The possible singulars of an English word."""
    if word.endswith("ies"):
        return [f"{word[:-3]}y"]
    if not word.endswith("s") or word.endswith("ss"):
        return []
    return [word[:-1], word[:-2]] if word.endswith("es") else [word[:-1]]
