// Text files that go with a message: chosen, pasted or dropped.

const MAX_BYTES = 2 << 20; // some half a million tokens: no context holds more

// Throws an Error that says what is wrong with it.
async function readText(file) {
  if (file.size > MAX_BYTES) throw new Error(`${file.name} is larger than ${MAX_BYTES >> 20} MiB: take a part of it.`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return { name: file.name, text };
  } catch {
    // not UTF-8
  }
  throw new Error(`${file.name} is not a text file: the page sends text in UTF-8 only.`);
}

// The files that wait to be sent, and the list that shows them.
export class Files {
  constructor({ list, input, field, refuse, insert }) {
    Object.assign(this, { list, field, refuse, insert, all: [] });
    input.addEventListener("change", async () => {
      await this.add(input.files);
      input.value = "";
      field.focus();
    });
    field.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.add(event.clipboardData.files);
    });
    document.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return; // a dragged text goes where it is dropped
      event.preventDefault();
      this.add(event.dataTransfer.files);
    });
  }

  async add(files) {
    for (const file of files) {
      try {
        const read = await readText(file);
        if (!this.insert(read)) this.all.push(read);
      } catch (problem) {
        this.refuse(problem);
      }
    }
    this.show();
  }

  // Hands them over.
  take() {
    const { all } = this;
    this.put([]);
    return all;
  }

  put(files) {
    this.all = files;
    this.show();
  }

  show() {
    this.list.replaceChildren(
      ...this.all.map((file) => {
        const item = document.createElement("li");
        const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
        remove.setAttribute("aria-label", `Remove ${file.name}`);
        remove.addEventListener("click", () => {
          this.put(this.all.filter((other) => other !== file));
          this.field.focus();
        });
        item.append(file.name, remove);
        return item;
      }),
    );
    this.list.hidden = !this.all.length;
  }
}
