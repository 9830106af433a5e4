// Rows that can be added to a form, without losing what is typed.

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-add-row]");
  if (!button) return;
  const row = document.getElementById(button.dataset.addRow).content.firstElementChild.cloneNode(true);
  document.getElementById(button.dataset.into).append(row);
  row.querySelector("input").focus();
});
