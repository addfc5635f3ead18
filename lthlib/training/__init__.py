"""Training: settings, networks as functions of named tensors, and one loop for every method."""

from lthlib.training.cost import Cost, Outcome, Step
from lthlib.training.network import Network, Tensors, channels_last, sgd_step
from lthlib.training.objective import Objective
from lthlib.training.settings import TrainingSettings, learning_rate, steps_of
from lthlib.training.trainer import Hooks, Trainer
