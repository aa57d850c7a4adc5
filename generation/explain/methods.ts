/** Methods of `explain`. */
export const explainMethods = ['occlusion', 'gradient', 'attention', 'rollout'] as const
export type ExplainMethod = (typeof explainMethods)[number]
