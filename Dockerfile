# earface, for a processor and for NVIDIA's GPUs: the usual builds of PyTorch have both.
#   docker build -t earface .
#   docker run --rm --shm-size 8g -v "$PWD:/home/earface/work" earface ears prepare --images crops/
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/home/earface/work" earface ears train
# A build for processors alone is far smaller: --build-arg TORCH="torch torchvision OPTIONS", with the options that pytorch.org
# names for pip. Loader workers hand over their batches in /dev/shm, of which a container has 64 MB unless it is given more.
FROM python:3.12-slim-bookworm

ARG TORCH="torch torchvision"
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    NO_ALBUMENTATIONS_UPDATE=1

COPY pyproject.toml README.md LICENSE /source/
COPY earface /source/earface
COPY ear_teacher /source/ear_teacher
COPY dsr /source/dsr
COPY facial_rec /source/facial_rec
COPY pipeline /source/pipeline
# hadolint ignore=DL3013,SC2086
RUN pip install ${TORCH} \
    && pip install "/source[heif,onnx]" \
    && rm -rf /source \
    && useradd --create-home earface

USER earface
WORKDIR /home/earface/work
ENTRYPOINT ["earface"]
CMD ["--help"]
