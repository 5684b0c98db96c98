"""Drift between two datasets: columns summarised in bounded memory, scored, and judged.

The way of a comparison, each stage usable by itself:

1. :mod:`.reading` opens a dataset that can be read again and again (:func:`~.reading.open_dataset`).
2. :mod:`.columns` says which columns are compared and as what (:func:`~.columns.plan`).
3. :mod:`.summarize` leaves one summary of each column from one pass (:func:`~.summarize.summarize`, or
   :func:`~.summarize.feed` for batches of one's own): :class:`~.numeric.NumericSummary` or
   :class:`~.categories.CategorySummary`. Summaries merge (``one.merge(other)``): those of blocks into that of the rest.
4. :mod:`.compare` scores two sets of summaries and judges (:func:`~.compare.compare`, for one column
   :func:`~.compare.score_of`); scores are in :mod:`.scores`, within bounds in :mod:`.bounds`; what a bound cannot
   settle is settled by a further pass in :mod:`.exact`.
5. :mod:`.findings` and :mod:`.outcome` make the verdict on the dataset, :mod:`.step` the report.

Thresholds learnt from blocks of the reference are in :mod:`.learning`.
"""
