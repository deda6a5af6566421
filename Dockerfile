# syntax=docker/dockerfile:1
# maskcache without a GPU: `docker build --tag maskcache .`; with one, see Dockerfile.cuda.
#
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" maskcache preprocess --coco COCO --out data/cache
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" maskcache train --cache data/cache --profile cpu
#   docker run --rm --volume "$PWD:/data:ro" --publish 127.0.0.1:8501:8501 --entrypoint maskcache-page maskcache \
#       --server.address 0.0.0.0 --server.headless true
#
# /data is the folder that commands start in: mount there what holds COCO, data and runs; a dataset alone may be mounted
# read-only, as `--volume "$PWD/COCO:/data/COCO:ro"`. With `--read-only` add `--tmpfs /tmp`.
# Kernels are compiled for the processor at hand, half a minute at the first use, so the image has none. They are kept in
# /home/maskcache/.cache, or in /tmp for another user: `--volume maskcache-kernels:/home/maskcache/.cache`, or
# `--env NUMBA_CACHE_DIR=/data/kernels`, keeps them for the next container.
# `--cpus` and `--memory` are followed. `bench` compares with a DataLoader's processes: for large batches, `--shm-size 1g`.

FROM python:3.11-slim-bookworm AS build
COPY . /source
# Of two builds of the same torch, pip prefers that for the CPU, which is a tenth of the size.
RUN python -m venv /opt/maskcache \
    && /opt/maskcache/bin/pip install --no-cache-dir -c /source/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu "/source[app,export,heic,video]"

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 maskcache \
    && mkdir --mode 1777 /data \
    && install --directory --owner maskcache /home/maskcache/.cache
COPY --from=build /opt/maskcache /opt/maskcache
ENV PATH=/opt/maskcache/bin:$PATH
USER maskcache
WORKDIR /data
ENTRYPOINT ["maskcache"]
CMD ["--help"]
