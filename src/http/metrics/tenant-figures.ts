/**
 * What each tenant's own requests came to: all that a tenant's key can see of the server's figures. Where tenants share a
 * server, its sums would tell each of them, by differences, what the others ask and when.
 */
import type { PromptReport } from "../../engine.ts";
import type { TierName } from "../../tier.ts";
import type { Tenant } from "../access.ts";

/** Since the server was started. */
export interface TenantFigures {
  readonly requests: number;
  readonly promptTokens: number;
  readonly computedTokens: number;
  readonly reusedTokens: Readonly<Partial<Record<TierName, number>>>;
}

const none: TenantFigures = { requests: 0, promptTokens: 0, computedTokens: 0, reusedTokens: {} };

/** At most one entry for each of the server's keys. */
export class FiguresByTenant {
  readonly #figures = new Map<string, TenantFigures>();

  of({ key }: NonNullable<Tenant>): TenantFigures {
    return this.#figures.get(key) ?? none;
  }

  /** A prompt of this tenant was read; without tenants nothing is kept. */
  promptRead(tenant: Tenant, report: PromptReport): void {
    if (tenant === undefined) return;
    const before = this.of(tenant);
    const reusedTokens = { ...before.reusedTokens };
    for (const [tier, tokens] of Object.entries(report.reused) as [TierName, number][])
      reusedTokens[tier] = (reusedTokens[tier] ?? 0) + tokens;
    this.#figures.set(tenant.key, {
      requests: before.requests + 1,
      promptTokens: before.promptTokens + report.promptTokens,
      computedTokens: before.computedTokens + report.computedTokens,
      reusedTokens,
    });
  }
}
