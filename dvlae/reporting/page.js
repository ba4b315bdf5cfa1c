document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const heading = button.parentElement, body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex, numeric = !heading.classList.contains("word");
  const previous = heading.getAttribute("aria-sort");
  const direction = previous ? (previous === "ascending" ? -1 : 1) : (numeric ? -1 : 1);
  heading.parentElement.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const value = row => row.cells[column].textContent;
  const order = (a, b) => numeric ? parseFloat(a) - parseFloat(b) : a.localeCompare(b, undefined, {numeric: true});
  [...body.rows].sort((a, b) => {
    const empty = (value(a) === "") - (value(b) === "");
    return empty || (value(a) === "" ? 0 : direction * order(value(a), value(b)));
  }).forEach(row => body.append(row));
}));
