"""The names that we and peft and trl take from transformers, each from the module that has it.

For one name of the package's own list the type checker reads all of its 300 models, which is a third of its
time. A name that is missing here is an error where it is imported: add it.
"""

from transformers.cache_utils import Cache as Cache
from transformers.cache_utils import DynamicCache as DynamicCache
from transformers.cache_utils import EncoderDecoderCache as EncoderDecoderCache
from transformers.configuration_utils import PreTrainedConfig as PreTrainedConfig
from transformers.configuration_utils import PretrainedConfig as PretrainedConfig
from transformers.data.data_collator import DataCollator as DataCollator
from transformers.feature_extraction_utils import FeatureExtractionMixin as FeatureExtractionMixin
from transformers.generation.configuration_utils import GenerationConfig as GenerationConfig
from transformers.generation.logits_process import LogitsProcessor as LogitsProcessor
from transformers.generation.logits_process import LogitsProcessorList as LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteria as StoppingCriteria
from transformers.generation.stopping_criteria import StoppingCriteriaList as StoppingCriteriaList
from transformers.image_processing_utils import BaseImageProcessor as BaseImageProcessor
from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig as AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM as AutoModelForCausalLM
from transformers.models.auto.modeling_auto import AutoModelForImageTextToText as AutoModelForImageTextToText
from transformers.models.auto.processing_auto import AutoProcessor as AutoProcessor
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import (
    DeepseekOcr2Config as DeepseekOcr2Config,
)
from transformers.models.deepseek_ocr2.image_processing_deepseek_ocr2 import (
    DeepseekOcr2ImageProcessor as DeepseekOcr2ImageProcessor,
)
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import (
    DeepseekOcr2ForConditionalGeneration as DeepseekOcr2ForConditionalGeneration,
)
from transformers.models.deepseek_ocr2.processing_deepseek_ocr2 import (
    DeepseekOcr2Processor as DeepseekOcr2Processor,
)
from transformers.models.gemma3.configuration_gemma3 import Gemma3Config as Gemma3Config
from transformers.models.gemma3.image_processing_gemma3 import Gemma3ImageProcessor as Gemma3ImageProcessor
from transformers.models.gemma3.modeling_gemma3 import (
    Gemma3ForConditionalGeneration as Gemma3ForConditionalGeneration,
)
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor as Gemma3Processor
from transformers.models.glm4v.configuration_glm4v import Glm4vConfig as Glm4vConfig
from transformers.models.glm4v.image_processing_glm4v import Glm4vImageProcessor as Glm4vImageProcessor
from transformers.models.glm4v.modeling_glm4v import (
    Glm4vForConditionalGeneration as Glm4vForConditionalGeneration,
)
from transformers.models.glm4v.processing_glm4v import Glm4vProcessor as Glm4vProcessor
from transformers.models.glm4v.video_processing_glm4v import Glm4vVideoProcessor as Glm4vVideoProcessor
from transformers.models.glm4v_moe.configuration_glm4v_moe import Glm4vMoeConfig as Glm4vMoeConfig
from transformers.models.glm4v_moe.modeling_glm4v_moe import (
    Glm4vMoeForConditionalGeneration as Glm4vMoeForConditionalGeneration,
)
from transformers.models.glm46v.image_processing_glm46v import Glm46VImageProcessor as Glm46VImageProcessor
from transformers.models.glm46v.processing_glm46v import Glm46VProcessor as Glm46VProcessor
from transformers.models.glm46v.video_processing_glm46v import Glm46VVideoProcessor as Glm46VVideoProcessor
from transformers.models.molmo2.configuration_molmo2 import Molmo2Config as Molmo2Config
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor as Molmo2ImageProcessor
from transformers.models.molmo2.modeling_molmo2 import (
    Molmo2ForConditionalGeneration as Molmo2ForConditionalGeneration,
)
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor as Molmo2Processor
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor as Molmo2VideoProcessor
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer as Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_qwen2_vl import (
    Qwen2VLImageProcessor as Qwen2VLImageProcessor,
)
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig as Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLForConditionalGeneration as Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import (
    Qwen3VLVideoProcessor as Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeConfig as Qwen3VLMoeConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import (
    Qwen3VLMoeForConditionalGeneration as Qwen3VLMoeForConditionalGeneration,
)
from transformers.processing_utils import ProcessorMixin as ProcessorMixin
from transformers.tokenization_utils_base import AddedToken as AddedToken  # pyright: ignore[reportPrivateImportUsage]
from transformers.tokenization_utils_base import PreTrainedTokenizerBase as PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast as PreTrainedTokenizerFast
from transformers.trainer import Trainer as Trainer
from transformers.trainer_callback import PrinterCallback as PrinterCallback
from transformers.trainer_callback import TrainerCallback as TrainerCallback
from transformers.trainer_callback import TrainerControl as TrainerControl
from transformers.trainer_callback import TrainerState as TrainerState
from transformers.trainer_utils import set_seed as set_seed
from transformers.training_args import TrainingArguments as TrainingArguments
from transformers.utils.quantization_config import BitsAndBytesConfig as BitsAndBytesConfig
