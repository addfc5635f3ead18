"""Where images come from: data sets, their fixed splits, batches on the device or streaming."""

from lthlib.data.batches import Batches, EvaluationBatches
from lthlib.data.cache import cache_folder, needless_entries, verify_cache
from lthlib.data.items import read_all
from lthlib.data.loading import SUPPORTED, load_dataset
from lthlib.data.parts import Dataset, Images, Part, Tensors
from lthlib.data.settings import DataSettings
from lthlib.data.splits import generator, split_indices
from lthlib.data.streaming import StreamingPart
