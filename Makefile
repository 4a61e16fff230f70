# make demo   a newcomer's first command: makes a real host, deploys a real model on it, asks it a question
# make test   one representative of everything that is claimed
# make lint | unit | browser | sanity | package | cuda | lab | molecule     one stage of it
# make test-full   the same and what takes longer; writes build/full.json
# make test-cuda   an engine for CUDA, built and linked without a GPU; an hour or more, goes on where it was interrupted
# make bench [ONLY=name,name]   every figure; writes build/bench.json
# make render-units   the server's unit in its forms, for review: build/units/{cpu,cuda,numa}/llamacpp@.service
# make docs   the roles' pages, from their argument_specs
# make demo-clean   removes the demo's hosts
SHELL := /bin/bash
.DEFAULT_GOAL := help

export ONPREM_LLAMACPP_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/onprem-llamacpp
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
export PATH := $(CURDIR)/.venv/bin:$(PATH)

ENGINE ?= package

# The browser is large, and only tests open pages.
demo demo-clean bench render-units docs: export SETUP_BROWSER := 0

.PHONY: help setup demo demo-clean test lint unit browser sanity package cuda lab molecule test-full test-cuda bench render-units docs

help:
	@grep -E '^# make' Makefile | cut -c3-

setup:
	@scripts/setup.sh

demo: setup
	@demo/run.sh "$(ENGINE)"

demo-clean: setup
	@demo/clean.sh

test: setup
	@scripts/test.sh

lint unit browser sanity package cuda lab molecule: setup
	@scripts/test.sh $@

test-full: setup
	@scripts/test.sh full

test-cuda: setup
	@scripts/test_cuda.sh full

bench: setup
	@python benchmarks/bench.py $(if $(ONLY),--only "$(ONLY)")

render-units: setup
	@ansible-playbook scripts/render_units.yml

docs: setup
	@python scripts/role_docs.py
