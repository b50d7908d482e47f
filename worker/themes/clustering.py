"""Clusters the topics of many firms into themes, by scikit-learn, scipy and numpy alone.

Each topic is a bag of the words of its sentences, keywords, name and summary. TF-IDF of these, reduced to 50 dimensions
(LSA), is clustered in two steps: spherical k-means into at most 2,000 micro-clusters, and Ward's method over their
centroids. So memory grows linearly with the number of topics, where Ward's method alone needs the square of it. A topic
that is far from every theme belongs to none. Clusters of too few firms and clusters whose topics have little in common
are dropped, and no firm may dominate a theme.

The same topics give the same themes: random numbers have a fixed seed, BLAS runs on one thread, and similarities are
rounded.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import average, fcluster, ward
from scipy.sparse import csr_matrix, diags
from scipy.spatial.distance import squareform
from sklearn import preprocessing
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits

from worker.themes.topics import FirmTopic
from worker.topics.text import STOP_WORDS, with_one_number
from worker.words import plain_words

Matrix = np.ndarray[Any, Any]
Sparse = Any
"""A csr_matrix, whose arithmetic the type checker does not follow."""

_normalize: Any = preprocessing.normalize
"""Rows to unit length; a row of zeros stays as it is."""

MIN_FIRMS = 3
"""Firms that a theme needs."""
MAX_FIRM_SHARE = 0.4
"""The largest share of a theme's topics that may come from one firm."""
KEYWORDS = 10

_DIMENSIONS = 50
_MICRO_CLUSTERS = 2_000
_MAX_THEMES = 300
_KMEANS_STEPS = 8
_MIN_COSINE = 0.7
"""Below this cosine to its theme's centroid, a topic is in no theme. Chosen by reading themes of 2,100 real topics: of
those between .6 and .7 few belonged to their theme."""
_MIN_LIKENESS, _ENOUGH_LIKENESS = 3.25, 0.1
"""The topics of a theme must be this many times as similar as topics in general, or have this mean cosine, which small
sets of similar topics reach. Among the themes of 2,100 real topics this drops ones such as "team, job, management"."""
_SAME_SUBJECT = 0.8
"""Themes are merged if the cosine of their centroids is at least this. Topics of known subjects have .84 to .95 within
a subject and at most .77 between two; of the themes of 2,100 real topics three pairs in 3,200 are that close, such as
two about repurchases."""
_MAX_WORD_SHARE = 0.5
"""Words that occur in more than half of all topics are ignored: they do not distinguish topics."""
_NAME_WEIGHT, _KEYWORD_WEIGHT = 3, 2
_DECIMALS = 9
_BLOCK = 8_192
"""Rows that are compared with all centroids at once: bounds the memory."""


@dataclass(frozen=True)
class Theme:
    members: list[int]
    """Indexes of its topics, the nearest to its centroid first."""
    similarities: list[float]
    """Cosine of each member to the theme's centroid."""
    keywords: list[str]


def find_themes(topics: Sequence[FirmTopic]) -> list[Theme]:
    """The themes of the topics, the largest first; a topic is in at most one theme."""
    if len(topics) < MIN_FIRMS:
        return []
    terms, vocabulary = _terms(topics)
    if not vocabulary:
        return []
    with threadpool_limits(1):
        vectors = _lsa(terms)
        labels, cosines = _cluster(vectors)
    least = min(_MIN_LIKENESS * _likeness(terms), _ENOUGH_LIKENESS)
    themes: list[Theme] = []
    for label in range(labels.max() + 1):
        rows = np.flatnonzero((labels == label) & (cosines >= _MIN_COSINE))
        nearest = rows[np.argsort(-cosines[rows], kind="stable")].tolist()
        members = _balanced(nearest, topics)
        if members and _likeness(terms[members]) >= least:
            keywords = _keywords(terms, members, vocabulary)
            themes.append(Theme(members, [float(cosines[row]) for row in members], keywords))
    return sorted(themes, key=lambda theme: (-len(theme.members), theme.members))


def _terms(topics: Sequence[FirmTopic]) -> tuple[Sparse, list[str]]:
    """TF-IDF of unit length: topics x words that at least MIN_FIRMS firms use; and these words."""
    counts = [_word_counts(topic) for topic in topics]
    words = with_one_number([list(count) for count in counts])
    firms: defaultdict[str, set[str]] = defaultdict(set)
    frequency: Counter[str] = Counter()
    for topic, row in zip(topics, words, strict=True):
        unique = set(row)
        frequency.update(unique)
        for word in unique:
            firms[word].add(topic.firm_id)
    most = max(_MAX_WORD_SHARE * len(topics), MIN_FIRMS)
    vocabulary = sorted(word for word in frequency if len(firms[word]) >= MIN_FIRMS and frequency[word] <= most)
    columns = {word: column for column, word in enumerate(vocabulary)}

    ends, indices, weights = [0], array("i"), array("d")
    for row, count in zip(words, counts, strict=True):
        for word, weight in zip(row, count.values(), strict=True):
            if word in columns:
                indices.append(columns[word])
                weights.append(weight)
        ends.append(len(indices))
    matrix: Sparse = csr_matrix((np.array(weights), np.array(indices), ends), shape=(len(topics), len(vocabulary)))
    matrix.sum_duplicates()
    matrix.data = 1 + np.log(matrix.data)
    matrix = matrix @ diags(np.log(len(topics) / np.array([frequency[word] for word in vocabulary], dtype=float)))
    return _normalize(matrix), vocabulary


def _word_counts(topic: FirmTopic) -> Counter[str]:
    """The weight of each word in the topic: the number of its sentences, and more for its name and keywords."""
    counts: Counter[str] = Counter()
    for text in (*topic.sentences, topic.summary):
        counts.update(set(plain_words(text)))
    for text, weight in ((topic.name, _NAME_WEIGHT), (" ".join(topic.keywords), _KEYWORD_WEIGHT)):
        for word in set(plain_words(text)):
            counts[word] += weight
    return Counter({word: count for word, count in counts.items() if word not in STOP_WORDS})


def _lsa(terms: Sparse) -> Matrix:
    """Topics in 50 dimensions, of unit length; a topic without a common word is 0."""
    svd = TruncatedSVD(min(_DIMENSIONS, terms.shape[1]), random_state=0)
    # For equal topics the share of variance explained, which is not used, is 0/0.
    with np.errstate(invalid="ignore"):
        return _normalize(np.round(svd.fit_transform(terms), _DECIMALS))


def _cluster(vectors: Matrix) -> tuple[Matrix, Matrix]:
    """The theme that each topic is nearest to, and the cosine to its centroid."""
    size = len(vectors)
    labels, _ = _to_nearest(vectors, vectors[np.linspace(0, size - 1, min(size, _MICRO_CLUSTERS)).astype(int)])
    labels = _kmeans(vectors, labels)
    centroids = _centroids(vectors, labels)
    themes = min(round(2 * size**0.5), _MAX_THEMES, len(centroids))
    merged = fcluster(ward(centroids), themes, criterion="maxclust") - 1 if len(centroids) > 1 else np.zeros(1, int)
    labels = _merge_alike(vectors, _kmeans(vectors, merged[labels]))
    return _to_nearest(vectors, _centroids(vectors, labels))


def _merge_alike(vectors: Matrix, labels: Matrix) -> Matrix:
    """Labels in which themes about the same subject are merged: few topics give too many themes."""
    centroids = _centroids(vectors, labels)
    if len(centroids) < 2:
        return labels
    distances = np.clip(1 - np.round(centroids @ centroids.T, _DECIMALS), 0, None)
    np.fill_diagonal(distances, 0)
    tree = average(squareform(distances, checks=False))
    return (fcluster(tree, 1 - _SAME_SUBJECT, criterion="distance") - 1)[labels]


def _kmeans(vectors: Matrix, labels: Matrix) -> Matrix:
    """Labels after some steps of spherical k-means, numbered from 0 without gaps."""
    for _ in range(_KMEANS_STEPS):
        labels, _ = _to_nearest(vectors, _centroids(vectors, labels))
    return np.unique(labels, return_inverse=True)[1]


def _centroids(vectors: Matrix, labels: Matrix) -> Matrix:
    size = len(labels)
    members = csr_matrix((np.ones(size), (labels, np.arange(size))), shape=(labels.max() + 1, size))
    return _normalize(members @ vectors)


def _to_nearest(vectors: Matrix, centroids: Matrix) -> tuple[Matrix, Matrix]:
    labels, cosines = np.empty(len(vectors), int), np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = np.round(vectors[block] @ centroids.T, _DECIMALS)
        labels[block], cosines[block] = similarity.argmax(axis=1), similarity.max(axis=1)
    return labels, cosines


def _balanced(rows: Sequence[int], topics: Sequence[FirmTopic]) -> list[int]:
    """The rows without the farthest ones of firms that have too large a share; none where too few firms are left."""
    kept = list(rows)
    while kept:
        by_firm = Counter(topics[row].firm_id for row in kept)
        firm, most = by_firm.most_common(1)[0]
        if len(by_firm) < MIN_FIRMS:
            return []
        if most <= MAX_FIRM_SHARE * len(kept):
            return kept
        kept.remove(next(row for row in reversed(kept) if topics[row].firm_id == firm))
    return kept


def _likeness(terms: Sparse) -> float:
    """The mean cosine of any two of the topics by their words, without LSA, which makes unrelated topics similar."""
    count = terms.shape[0]
    total = np.asarray(terms.sum(axis=0)).ravel()
    return round(float(total @ total - terms.multiply(terms).sum()) / (count * (count - 1)), _DECIMALS)


def _keywords(terms: Sparse, rows: Sequence[int], vocabulary: list[str]) -> list[str]:
    """The words of the highest mean TF-IDF over the theme's topics."""
    scores = np.round(np.asarray(terms[rows].mean(axis=0)).ravel(), _DECIMALS)
    best = np.argsort(-scores, kind="stable")[:KEYWORDS]
    return [vocabulary[column] for column in best if scores[column] > 0]
