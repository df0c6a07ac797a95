"""The Open Inference Protocol, version 2, that the clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with Triton's binary tensor data extension.

Each dataset is three models, one for each thing that is done with rows; all their versions are served:

=====================  ========================  =============================================
model                  input                     outputs
=====================  ========================  =============================================
``<dataset>``          ``vectors`` FP32 [-1, M]  ``scores`` FP64 [-1], ``anomalies`` BOOL [-1]
``<dataset>.encoder``  ``vectors`` FP32 [-1, M]  ``latents`` FP32 [-1, L]
``<dataset>.decoder``  ``latents`` FP32 [-1, L]  ``vectors`` FP32 [-1, M]
=====================  ========================  =============================================

Three, because to the protocol a model is a function whose inputs all have to be there, and whose outputs all are
answered unless some are asked for: latents as a further output of the first would cost every plain request a second
graph. Names of datasets have no dot, so that these can't be a dataset's. An output has the name of the input that takes
it, so that the encoder's answer can be sent to the decoder as it is.

Scores are FP64 for the reason that they are float64 elsewhere: comparing them with the threshold, which the answer has
as a parameter, gives the anomalies wherever it is done.

Inputs may be of any numeric datatype, as in every other format they may be: numbers are numbers, and become float32. A
field that nobody knows is ignored, for KServe's client sends some; so is a Content-Type, for Triton's sends none.
"""
