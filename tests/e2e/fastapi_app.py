# SPDX-License-Identifier: MIT
"""A backend as people write it: FastAPI with Chroma in the process, and protected operations."""

import os

import chromadb
from fastapi import FastAPI

from chromashim import active, protected_operation
from database_protection import protected_db_operation

client = chromadb.PersistentClient(os.environ["APP_DATA"])
docs = client.get_or_create_collection("docs", embedding_function=None)
api = FastAPI()


@protected_db_operation("conversation_add")
def store(name: str) -> None:
    docs.upsert(ids=[name], embeddings=[[1.0, 2.0]], documents=[name])


@api.post("/notes/{name}")
def add(name: str):
    store(name)
    return {"pid": os.getpid()}


@api.post("/rebuild")
@protected_operation("rebuild", snapshot="always")
async def rebuild():
    docs.upsert(ids=["rebuilt"], embeddings=[[3.0, 4.0]])
    return {"pid": os.getpid()}


@api.get("/notes")
def count():
    return {"count": docs.count(), "pid": os.getpid(), "active": active()}
