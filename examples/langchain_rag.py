"""A RAG chain in LangChain that runs offline: the embedder is in the package, the model is a fake.

    python examples/langchain_rag.py

Put a real chat model in the place of FakeListChatModel; examples/langchain_rag_openai.py does.
"""

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from nestvec.langchain import FunnelRetriever, MatryoshkaEmbeddings, NestedVectorStore

DOCUMENTS = [
    Document(
        id="bisect",
        page_content="bisect finds where an item belongs in a sorted list.",
        metadata={"topic": "data"},
    ),
    Document(
        id="heapq",
        page_content="heapq keeps a list as a heap: its smallest item is always the first.",
        metadata={"topic": "data"},
    ),
    Document(
        id="semaphore",
        page_content="A semaphore limits how many tasks enter a section at once.",
        metadata={"topic": "concurrency"},
    ),
    Document(
        id="strptime",
        page_content="strptime reads a date from a string by a format.",
        metadata={"topic": "dates"},
    ),
]

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these notes only.\n\n{context}\n\nQuestion: {question}"
)


def joined(documents: list[Document]) -> str:
    return "\n".join(f"- {document.page_content}" for document in documents)


def main() -> None:
    # Two nested fields, 64 and 128 of 256 numbers, are searched before the full vectors.
    vectorstore = NestedVectorStore.from_documents(
        DOCUMENTS, MatryoshkaEmbeddings("static"), url="edge:./langchain-rag", dims=(64, 128)
    )
    retriever = FunnelRetriever(store=vectorstore, k=2, funnel="64:50 128:10")
    model = FakeListChatModel(responses=["Use bisect: it finds the place in a sorted list."])
    chain = (
        {"context": retriever | joined, "question": RunnablePassthrough()}
        | PROMPT
        | model
        | StrOutputParser()
    )
    question = "How do I find the place of an item in a sorted list?"
    print(question)
    for document in retriever.invoke(question, filter={"topic": {"$ne": "dates"}}):
        print(f"  found {document.id}: {document.page_content}")
    print(chain.invoke(question))
    vectorstore.close()


if __name__ == "__main__":
    main()
