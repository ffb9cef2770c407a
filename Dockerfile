# landcover in a container: the command is the entry point, scenes are mounted.
#   docker build -t landcover .
#   docker run --rm -v "$PWD:/data" landcover classify /data/scene.tif -o /data/maps
# PyTorch's wheels for Linux carry CUDA: for a GPU add `--gpus all` to `docker run`.
# For a smaller image without CUDA name the index of PyTorch's CPU wheels when building:
#   docker build --build-arg TORCH_INDEX_URL=<PyTorch's CPU wheel index> -t landcover:cpu .
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim

# rasterio's wheels bring GDAL but not the system's XML parser.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/landcover
COPY constraints.txt ./
ARG TORCH_INDEX_URL=""
# Torch alone first: its layer is large and changes seldom. The CPU index has builds of the same
# versions with a local label (+cpu), which the plain pins admit and pip prefers.
RUN pip install --no-cache-dir -c constraints.txt \
    ${TORCH_INDEX_URL:+--extra-index-url ${TORCH_INDEX_URL}} torch torchvision

COPY pyproject.toml README.md LICENSE cli.py ./
COPY pipeline ./pipeline
COPY models ./models
RUN pip install --no-cache-dir -c constraints.txt .

# A user of its own: what it writes into a mounted folder is then not root's (override with --user).
RUN useradd --create-home landcover
USER landcover
WORKDIR /data
ENTRYPOINT ["landcover"]
CMD ["--help"]
