// The page's dialogs: each resolves to its form's data, or to null where the reader leaves it. The button that closed it, `ok` or `forget`,
// is the dialog's returnValue; only `ok` is checked.

export function ask(id, fill, check) {
  const dialog = document.getElementById(id);
  const form = dialog.querySelector("form");
  const problem = form.querySelector(".problem");
  if (problem) problem.textContent = "";
  form.reset();
  fill(form);
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    // Enter in a field presses a form's first button, which is Cancel.
    form.onkeydown = (event) => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT" || event.isComposing) return;
      event.preventDefault();
      form.querySelector("[value=ok]").click();
    };
    form.onsubmit = (event) => {
      if (event.submitter?.value !== "ok" || !check) return;
      try {
        check(new FormData(form));
      } catch (error) {
        event.preventDefault();
        problem.textContent = error.message;
      }
    };
    dialog.onclose = () => resolve(["ok", "forget"].includes(dialog.returnValue) ? new FormData(form) : null);
  });
}

export async function question(title, label, value) {
  const data = await ask("question", (form) => {
    document.getElementById("question-title").textContent = title;
    form.querySelector(".answer").hidden = value === undefined;
    form.elements.answer.value = value ?? "";
    form.querySelector("[value=ok]").textContent = label;
  });
  return data && data.get("answer");
}
