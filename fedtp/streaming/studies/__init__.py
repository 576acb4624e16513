"""Prequential studies: several models side by side on one stream, each sample predicted, scored and then learnt.

>>> from fedtp.streaming.studies import Study, open_source
>>> study = Study(open_source("sea").limited(samples=500), ["no-change", "river.naive_bayes.GaussianNB"])
>>> list(study.run().summary["models"])
['no-change', 'GaussianNB']
"""

from fedtp.streaming.studies.catalog import names, open_source
from fedtp.streaming.studies.csv_file import open_csv
from fedtp.streaming.studies.models import Model
from fedtp.streaming.studies.prequential import Outcome, Protocol, prequential
from fedtp.streaming.studies.result import StudyResult
from fedtp.streaming.studies.source import Source
from fedtp.streaming.studies.study import Progress, Study

__all__ = [
    "Model",
    "Outcome",
    "Progress",
    "Protocol",
    "Source",
    "Study",
    "StudyResult",
    "names",
    "open_csv",
    "open_source",
    "prequential",
]
