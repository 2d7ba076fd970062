"""The same chain with a model behind an OpenAI-compatible API.

    pip install langchain-openai
    OPENAI_API_KEY=… python examples/langchain_rag_openai.py

OPENAI_BASE_URL leads to another provider, or to a server of your own (vLLM, Ollama, …); CHAT_MODEL
and EMBEDDING_MODEL name its models. Without EMBEDDING_MODEL the embedder of the package is used.
"""

import os

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from nestvec.langchain import FunnelRetriever, MatryoshkaEmbeddings, NestedVectorStore

TEXTS = [
    "bisect finds where an item belongs in a sorted list.",
    "heapq keeps a list as a heap: its smallest item is always the first.",
    "A semaphore limits how many tasks enter a section at once.",
]


def main() -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        print("set OPENAI_API_KEY (and OPENAI_BASE_URL for another provider) to run this example")
        return
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    named = os.environ.get("EMBEDDING_MODEL")
    embeddings = (
        # The full vectors are asked for, and nestvec cuts the prefixes itself. Texts are sent as
        # texts: token numbers, the default, are understood by OpenAI only.
        OpenAIEmbeddings(model=named, check_embedding_ctx_length=False)
        if named
        else MatryoshkaEmbeddings("static")
    )
    vectorstore = NestedVectorStore.from_texts(TEXTS, embeddings, url="memory:", dims=(64,))
    retriever = FunnelRetriever(store=vectorstore, k=2)
    chain = (
        {"context": retriever | joined, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("Answer from\n{context}\n\nQuestion: {question}")
        | ChatOpenAI(model=os.environ.get("CHAT_MODEL", "gpt-4o-mini"), temperature=0)
        | StrOutputParser()
    )
    print(chain.invoke("How do I find the place of an item in a sorted list?"))


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


if __name__ == "__main__":
    main()
