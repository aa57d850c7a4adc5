/** A pattern of parameter paths: a glob (`*` for one name, `**` for any number), or a regular expression of a whole path. */
export type PathPattern = string | RegExp

const source = (glob: string): string =>
  glob
    .split(/(\*\*?)/)
    .map((part) => (part === '**' ? '.+' : part === '*' ? '[^.]+' : part.replaceAll(/[.\\^$+?()[\]{}|]/g, '\\$&')))
    .join('')

/** Whether a path matches. A regular expression matches the whole path; a glob matches the last names (`q_proj`, `mlp.*`), as PEFT's target modules. */
export const matchesPath = (pattern: PathPattern): ((path: string) => boolean) => {
  const whole = new RegExp(typeof pattern === 'string' ? `^(?:.*\\.)?${source(pattern)}$` : `^(?:${pattern.source})$`)
  return (path) => whole.test(path)
}
