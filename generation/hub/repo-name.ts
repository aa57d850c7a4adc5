import { type Issue, issue } from '../../lib/error.js'

const part = /^[A-Za-z0-9](?:[\w.-]*\w)?$/ // Python's \w, were it ASCII, and no - or . at either end

/** Whether `org/name` could name a repository. Source: `validate_repo_id` (huggingface_hub 2.4). */
export const isRepoName = (name: string): boolean => {
  const parts = name.split('/')
  return (
    parts.length === 2 && parts.every((p) => part.test(p)) && name.length <= 96 && !/--|\.\./.test(name) && !name.endsWith('.git')
  )
}

/** Whether it can only be meant as a path: `/x`, `./x`, `~/x`, `C:\x`, `a/b/c`, `a/`. */
export const isPath = (name: string): boolean => /^[./~]|\\|^\w:|\/$/.test(name) || name.split('/').length > 2

/** Why a name that is no folder names no repository either. */
export const badName = (name: string): Issue =>
  issue(
    'BadModelName',
    `${JSON.stringify(name)} is no folder here, and no repository of the hub: that is org/name, of letters, digits, "-", "_" and ".", 96 at most, without "--" or ".."`,
    { name }
  )

/** What is wrong with a revision that could be no branch, tag or commit, which becomes part of a path. Source: `git check-ref-format`. */
export const revisionIssues = (revision: string): readonly Issue[] =>
  !/[\p{Cc}\s\\:?*[~^]|\.\./u.test(revision) && revision.split('/').every((p) => p !== '' && !p.startsWith('.'))
    ? []
    : [issue('BadRevision', `revision ${JSON.stringify(revision)}: give a branch, a tag or a commit`, { revision })]
