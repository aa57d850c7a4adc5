import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import * as T from 'fp-ts/lib/Task.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../error.js'
import { type Command, run } from './process.js'

/** The three programs that a set-up needs. */
export interface Toolchain {
  readonly pip: Command
  readonly python: Command
  readonly compiler: Command
}
export type Tool = keyof Toolchain

const commands = (env: NodeJS.ProcessEnv): Readonly<Record<Tool, readonly Command[]>> => ({
  pip: [['python3', '-m', 'pip'], ['pip3'], ['pip'], ['python', '-m', 'pip']],
  python: [['python3'], ['python']],
  compiler: [...(env.CXX ? [[env.CXX] as const] : []), ['g++'], ['c++'], ['clang++']]
})

/** What each package manager calls them. */
const packages: Readonly<Record<string, readonly [install: string, Readonly<Record<Tool, string>>]>> = {
  'apt-get': ['apt-get install -y', { pip: 'python3-pip', python: 'python3', compiler: 'g++' }],
  dnf: ['dnf install -y', { pip: 'python3-pip', python: 'python3', compiler: 'gcc-c++' }],
  zypper: ['zypper install -y', { pip: 'python3-pip', python: 'python3', compiler: 'gcc-c++' }],
  pacman: ['pacman -S --noconfirm', { pip: 'python-pip', python: 'python', compiler: 'gcc' }],
  apk: ['apk add', { pip: 'py3-pip', python: 'python3', compiler: 'g++' }],
  brew: ['brew install', { pip: 'python3', python: 'python3', compiler: 'gcc' }]
}

const onPath = (program: string, env: NodeJS.ProcessEnv): boolean =>
  (env.PATH ?? '').split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, program)))

/** The command that installs a tool on this machine, by the package manager that is here. */
export const installHint = (tool: Tool, env: NodeJS.ProcessEnv = process.env): string => {
  if (process.platform === 'darwin' && tool === 'compiler') return 'xcode-select --install'
  const manager = Object.keys(packages).find((name) => onPath(name, env))
  const [install, names] = packages[manager ?? 'apt-get'] ?? ['', {} as Record<Tool, string>]
  const sudo = manager === 'brew' || process.getuid?.() === 0 ? '' : 'sudo '
  return `${sudo}${install} ${names[tool]}`
}

const titles: Readonly<Record<Tool, string>> = { pip: 'pip', python: 'Python', compiler: 'a C++ compiler' }

/** The first of a tool's commands that runs; the error names the command that installs it. */
export const findTool =
  (tool: Tool, env: NodeJS.ProcessEnv): TaskEither<Issue, Command> =>
  async () => {
    for (const command of commands(env)[tool])
      if (E.isRight(await run(command, ['--version'], { env })())) return E.right(command)
    const mend = installHint(tool, env)
    return E.left(issue('MissingTool', `${titles[tool]} is missing; install it with \`${mend}\``, { tool, mend }))
  }

/** All three, looked for at the same time; every one that is missing is an error of its own. */
export const findToolchain = (env: NodeJS.ProcessEnv): TaskEither<Issues, Toolchain> =>
  T.map(([pip, python, compiler]: readonly [E.Either<Issue, Command>, E.Either<Issue, Command>, E.Either<Issue, Command>]) => {
    const found = (tool: E.Either<Issue, Command>): Command => (E.isRight(tool) ? tool.right : ['false'])
    const missing = [pip, python, compiler].flatMap((tool) => (E.isLeft(tool) ? [tool.left] : []))
    return whenValid(missing, () => ({ pip: found(pip), python: found(python), compiler: found(compiler) }))
  })(() => Promise.all([findTool('pip', env)(), findTool('python', env)(), findTool('compiler', env)()]))
