import { contramap } from 'fp-ts/lib/Eq.js'
import * as NEA from 'fp-ts/lib/NonEmptyArray.js'
import { Eq } from 'fp-ts/lib/string.js'
import type { Issue, Issues } from '../../lib/error.js'

/** The issues without repetitions: several readers of a folder may report the same missing file. */
export const distinctIssues: (issues: Issues) => Issues = NEA.uniq(contramap(({ message }: Issue) => message)(Eq))
