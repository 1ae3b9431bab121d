// A list of any length of which only the rows in view exist.

const AROUND = 6; // rows above and below the view

export class VirtualList {
  // frame: the element that scrolls. draw(item): a row's element. alike(one, other): whether the row of one item does for
  // the other of its key. Items are { height, key, ... }.
  constructor(frame, draw, alike) {
    this.frame = frame;
    this.draw = draw;
    this.alike = alike;
    this.items = [];
    this.tops = [0];
    this.shown = new Map();
    this.ground = document.createElement("div");
    this.ground.className = "adiff-ground";
    frame.append(this.ground);
    frame.addEventListener("scroll", () => this.update(), { passive: true });
    new ResizeObserver(() => this.update()).observe(frame);
  }

  // Rows that stay the same stay in the page: the pointer, the focus and the pictures are not taken from them.
  show(items) {
    const places = new Map(items.map((item, index) => [item.key, index]));
    const kept = new Map();
    for (const [index, row] of this.shown) {
      const item = this.items[index];
      const place = places.get(item.key);
      if (place !== undefined && this.alike(item, items[place])) kept.set(place, row);
      else row.remove();
    }
    this.items = items;
    this.shown = kept;
    this.tops = [0];
    for (const item of items) this.tops.push(this.tops.at(-1) + item.height);
    this.ground.style.height = `${this.tops.at(-1)}px`;
    for (const [index, row] of kept) this.put(row, index);
    this.update();
  }

  put(row, index) {
    row.style.transform = `translateY(${this.tops[index]}px)`;
    row.style.height = `${this.items[index].height}px`;
  }

  update() {
    if (!this.frame.isConnected) return; // out of the page no row is in view, nor has its picture asked for
    const { scrollTop, clientHeight } = this.frame;
    const first = Math.max(0, this.at(scrollTop) - AROUND);
    const last = Math.min(this.items.length, this.at(scrollTop + clientHeight) + AROUND + 1);
    for (const [index, row] of this.shown) {
      if (index >= first && index < last) continue;
      row.remove();
      this.shown.delete(index);
    }
    let next = null; // rows lie in the page in their order, for the Tab key and for readers of the screen
    for (let index = last - 1; index >= first; index -= 1) {
      let row = this.shown.get(index);
      if (!row) {
        row = this.draw(this.items[index]);
        this.put(row, index);
        this.shown.set(index, row);
      }
      if (row.parentNode !== this.ground || row.nextSibling !== next) this.ground.insertBefore(row, next);
      next = row;
    }
  }

  // Brings a row into view and gives it the focus.
  focus(key) {
    this.reveal(key);
    this.update();
    this.shown.get(this.place(key))?.focus({ preventScroll: true });
  }

  reveal(key) {
    const index = this.place(key);
    if (index < 0) return;
    const [top, bottom] = [this.tops[index], this.tops[index + 1]];
    const { scrollTop, clientHeight } = this.frame;
    if (top < scrollTop) this.frame.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.frame.scrollTop = bottom - clientHeight;
  }

  place(key) {
    return this.items.findIndex((item) => item.key === key);
  }

  // The number of the item at so many pixels from the top.
  at(pixels) {
    let [low, high] = [0, this.items.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= pixels) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
